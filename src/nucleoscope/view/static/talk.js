// Talking with the server: the token, JSON, pictures, and small helpers for building the page.

const KEY = "nucleoscope-token";
let token = "";

async function enter() {
  const given = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (given.startsWith("once-")) {
    const reply = await fetch("/enter", { method: "POST", body: given.slice(5) });
    if (reply.ok) sessionStorage.setItem(KEY, (await reply.json()).token);
  } else if (given) {
    sessionStorage.setItem(KEY, given);
  }
  token = sessionStorage.getItem(KEY) || "";
}

async function ask(method, path, query, body) {
  const address = path + (query ? "?" + new URLSearchParams(query) : "");
  let reply;
  try {
    reply = await fetch(address, { method, body, headers: { "X-Nucleoscope-Token": token } });
  } catch {
    throw new Error("nucleoscope no longer runs; start it again.");
  }
  if (reply.status === 403) {
    throw new Error("this address was used up or is of an earlier start; open the one that " +
      "nucleoscope printed.");
  }
  if (!reply.ok) {
    const told = await reply.json().catch(() => ({}));
    throw new Error(told.error || `the server answered ${reply.status}.`);
  }
  return reply;
}

export const get = async (path, query) => (await ask("GET", path, query)).json();
export const post = async (path, value) =>
  (await ask("POST", path, null, JSON.stringify(value))).json();
export const floats = async (path, query) =>
  new Float32Array(await (await ask("GET", path, query)).arrayBuffer());
export const picture = async (path, query) =>
  createImageBitmap(await (await ask("GET", path, query)).blob());

// An element with attributes, listeners (onclick: f) and children; text stays text.
export function el(name, more = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(more)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

let timer = 0;
export function say(text, isError = false) {
  let box = document.getElementById("say");
  if (!box) document.body.append((box = el("div", { id: "say", role: "status" })));
  box.textContent = text;
  box.className = isError ? "shown wrong" : "shown";
  clearTimeout(timer);
  timer = setTimeout(() => (box.className = ""), isError ? 9000 : 2500);
}

export const guarded = (work) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    say(error.message, true);
  }
};

export async function begin(work) {
  const app = document.getElementById("app");
  try {
    await enter();
    await work(app);
  } catch (error) {
    app.replaceChildren(el("p", { class: "stop" }, error.message));
  }
}

// Text fields take keys for themselves.
export const isTyping = (event) =>
  ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) &&
  !["range", "checkbox", "color"].includes(event.target.type);

// A scale from dark blue over green to yellow (viridis at five places), t from 0 to 1.
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
export function scaled(t) {
  const at = Math.min(Math.max(t, 0), 1) * 4, i = Math.min(Math.floor(at), 3), f = at - i;
  const part = (k) => Math.round(SCALE[i][k] * (1 - f) + SCALE[i + 1][k] * f);
  return `rgb(${part(0)},${part(1)},${part(2)})`;
}
