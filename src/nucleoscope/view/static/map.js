// An atlas: the 2D map of its nuclei, thumbnails, nearest neighbours, and types given by hand.

import { factList } from "./table.js";
import { begin, el, floats, get, guarded, isTyping, picture, post, say, scaled } from "./talk.js";

const NEAR_PX = 46; // side of a thumbnail on the map
const SHOWN = 160; // from so few nuclei in sight on, pictures stand in for dots

begin(async (app) => {
  const state = await get("/state");
  document.title = `${state.title} · nucleoscope`;
  const places = await floats("/places"), n = state.n;
  const isTypingTypes = Boolean(state.types);
  let types = [...(state.types ?? [])], typed = new Map(Object.entries(state.typed ?? {})
    .map(([row, name]) => [Number(row), name]));
  let saved = JSON.stringify([...typed]), current = types[0] ?? "", past = [];
  let scale = 1, cx = 0.5, cy = 0.5, values = null, paint = [], column = null, hidden = new Set();
  let chosen = -1, neighbours = [];
  const sprites = new Map();

  const canvas = el("canvas", { tabIndex: 0, "aria-label": "map of the nuclei" });
  const holder = el("div", { class: "stage map" }, canvas);
  const palette = el("select", { "aria-label": "colour by", onchange: () => colour(palette.value) },
    ...state.columns.map((c) => el("option", {}, c.name)));
  const key = el("div", { class: "legend tall" }), card = el("section", { class: "card" });
  const kinds = el("div", { class: "kinds" }), count = el("p", { class: "soft" });
  const asked = el("div", { class: "thumbs" });
  const save = el("button", { class: "main", onclick: () => store() }, "Save (Ctrl+S)");
  const undoButton = el("button", { onclick: () => undo() }, "Undo (U)");
  const naming = el("input", {
    type: "text", placeholder: "another type", maxLength: 60, "aria-label": "another type",
    onkeydown: (event) => {
      const name = naming.value.trim();
      if (event.key !== "Enter" || !name) return;
      if (!types.includes(name) && types.length < 9) types.push(name);
      current = name;
      naming.value = "";
      naming.blur();
      refreshTypes();
    },
  });
  app.replaceChildren(
    el("div", { class: "left" }, holder),
    el("aside", {},
      el("h1", {}, state.title), el("p", { class: "soft" }, `${n.toLocaleString("en")} nuclei`),
      isTypingTypes && el("section", {},
        el("div", { class: "line" }, save, undoButton,
          el("button", { onclick: () => suggest() }, "Which next?")),
        count, kinds, naming, asked),
      el("section", {}, el("label", { class: "line" }, "coloured by ", palette), key),
      card,
      el("p", { class: "soft small" }, "wheel: zoom · drag: move · click: nucleus and its " +
        "nearest neighbours · 0: whole map" + (isTypingTypes ? " · 1–9: type of the nucleus" : ""))));

  const size = () => ({ width: holder.clientWidth, height: holder.clientHeight });
  const fit = () => {
    let right = 0, top = 0;
    for (let i = 0; i < n; i++) {
      right = Math.max(right, places[2 * i]);
      top = Math.max(top, places[2 * i + 1]);
    }
    const { width, height } = size();
    scale = 0.94 * Math.min(width / (right || 1), height / (top || 1));
    [cx, cy] = [right / 2, top / 2];
    refresh();
  };
  const toScreen = (i) => {
    const { width, height } = size();
    return [(places[2 * i] - cx) * scale + width / 2, (cy - places[2 * i + 1]) * scale + height / 2];
  };

  const colour = guarded(async (name) => {
    column = state.columns.find((c) => c.name === name);
    palette.value = name;
    values = await floats("/column", { name });
    hidden = new Set();
    const hex = (text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));
    if (column.is_number) {
      let low = Infinity, high = -Infinity;
      for (const v of values) {
        if (v < low) low = v;
        if (v > high) high = v;
      }
      column.low = Number.isFinite(low) ? low : 0;
      column.high = Number.isFinite(high) ? high : 1;
      paint = Array.from({ length: 65 }, (_, i) => scaled(i / 64).match(/\d+/g).map(Number));
    } else if (column.names.length > 7) {
      column.colours = column.names.map((_, i) => hsl((i * 137.508) % 360, i % 2 ? 0.75 : 0.6));
      paint = column.colours.map(hex);
    } else paint = column.colours.map(hex);
    legend();
    refresh();
  });

  function hsl(h, l) {
    const part = (k) => {
      const t = (k + h / 30) % 12;
      const v = l - 0.7 * Math.min(l, 1 - l) * Math.max(-1, Math.min(t - 3, 9 - t, 1));
      return Math.round(255 * v).toString(16).padStart(2, "0");
    };
    return `#${part(0)}${part(8)}${part(4)}`;
  }

  const shade = (i) => {
    const v = values[i];
    if (!column.is_number) return paint[v] ?? [136, 136, 136];
    const t = (v - column.low) / (column.high - column.low || 1);
    return Number.isNaN(t) ? [136, 136, 136] : paint[Math.round(t * 64)];
  };

  function legend() {
    key.replaceChildren();
    const dot = (c) => {
      const node = el("i", { class: "swatch" });
      node.style.background = c;
      return node;
    };
    if (column.is_number) {
      key.append(String(Number(column.low.toPrecision(4))),
        ...Array.from({ length: 24 }, (_, i) => dot(scaled(i / 23))),
        String(Number(column.high.toPrecision(4))));
      return;
    }
    const counts = new Array(column.names.length).fill(0);
    for (const v of values) counts[v]++;
    column.names.forEach((name, i) => key.append(el("button", {
      class: hidden.has(i) ? "entry off" : "entry", title: "show or hide",
      onclick: () => {
        if (!hidden.delete(i)) hidden.add(i);
        legend();
        refresh();
      },
    }, dot(column.colours[i]), `${name || "none"} ${counts[i].toLocaleString("en")}`)));
  }

  let isWaiting = false;
  function refresh() {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => { isWaiting = false; draw(); });
  }

  const isShown = (i) => column.is_number || !hidden.has(values[i]);

  function draw() {
    if (!values) return;
    const dense = window.devicePixelRatio || 1, { width, height } = size();
    canvas.width = Math.max(1, Math.round(width * dense));
    canvas.height = Math.max(1, Math.round(height * dense));
    const ctx = canvas.getContext("2d"), image = ctx.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer), w = canvas.width, h = canvas.height;
    pixels.fill(0xff140f0e);
    const inSight = [], dot = Math.max(1, Math.round((n > 200000 ? 1 : n > 20000 ? 2 : n > 3000 ? 3 : 5) * dense));
    for (let i = 0; i < n; i++) {
      const x = ((places[2 * i] - cx) * scale + width / 2) * dense;
      const y = ((cy - places[2 * i + 1]) * scale + height / 2) * dense;
      if (!(x >= 0 && y >= 0 && x < w && y < h) || !isShown(i)) continue;
      if (inSight.length <= SHOWN) inSight.push(i);
      const [r, g, b] = shade(i), code = 0xff000000 | (b << 16) | (g << 8) | r;
      const x0 = Math.max(0, Math.round(x - dot / 2)), y0 = Math.max(0, Math.round(y - dot / 2));
      for (let v = y0; v < Math.min(h, y0 + dot); v++) {
        for (let u = x0; u < Math.min(w, x0 + dot); u++) pixels[v * w + u] = code;
      }
    }
    ctx.putImageData(image, 0, 0);
    ctx.setTransform(dense, 0, 0, dense, 0, 0);
    if (state.has_crops && inSight.length <= SHOWN) drawThumbs(ctx, inSight);
    ctx.lineWidth = 1.5;
    for (const [rows, style, r] of [[neighbours, "#ffffff", 5], [[chosen], "#ff4040", 8]]) {
      ctx.strokeStyle = style;
      for (const i of rows) {
        if (i < 0) continue;
        const [x, y] = toScreen(i);
        ctx.beginPath();
        ctx.arc(x, y, r, 0, 7);
        ctx.stroke();
      }
    }
    ctx.fillStyle = "#ffffff";
    ctx.font = "11px system-ui, sans-serif";
    for (const [i, name] of typed) {
      const [x, y] = toScreen(i);
      if (x >= 0 && y >= 0 && x < width && y < height) ctx.fillText(name, x + 6, y - 4);
    }
  }

  const fetchSprites = guarded(async (rows) => {
    for (const row of rows) sprites.set(row, null);
    const sheet = await picture("/thumbnails", { rows: rows.join(",") });
    await Promise.all(rows.map(async (row, k) => {
      const x = (k % state.across) * state.side, y = Math.floor(k / state.across) * state.side;
      sprites.set(row, await createImageBitmap(sheet, x, y, state.side, state.side));
    }));
    if (sprites.size > 4000) for (const old of [...sprites.keys()].slice(0, 2000)) sprites.delete(old);
    refresh();
  });

  function drawThumbs(ctx, rows) {
    const missing = rows.filter((row) => !sprites.has(row));
    if (missing.length) fetchSprites(missing);
    for (const row of rows) {
      const sprite = sprites.get(row);
      if (!sprite) continue;
      const [x, y] = toScreen(row), [r, g, b] = shade(row), half = NEAR_PX / 2;
      ctx.drawImage(sprite, x - half, y - half, NEAR_PX, NEAR_PX);
      ctx.lineWidth = 2;
      ctx.strokeStyle = `rgb(${r},${g},${b})`;
      ctx.strokeRect(x - half, y - half, NEAR_PX, NEAR_PX);
    }
  }

  async function thumb(row, note) {
    const box = el("canvas", { width: state.side, height: state.side });
    if (state.has_crops) {
      if (!sprites.get(row)) await fetchSprites([row]);
      const sprite = sprites.get(row);
      if (sprite) box.getContext("2d").drawImage(sprite, 0, 0);
    }
    return el("button", { class: row === chosen ? "thumb on" : "thumb", onclick: () => choose(row) },
      box, el("span", {}, note));
  }

  const choose = guarded(async (row) => {
    chosen = row;
    const found = await get("/nucleus", { row });
    if (chosen !== row) return;
    neighbours = found.neighbours;
    const missing = neighbours.filter((r) => !sprites.get(r));
    if (state.has_crops && missing.length) await fetchSprites(missing);
    const pictures = await Promise.all(neighbours.map((r, i) =>
      thumb(r, found.similarity[i].toFixed(3))));
    const own = Object.fromEntries(Object.entries(found.facts).filter(([k]) => !k.startsWith("f_")));
    const features = Object.fromEntries(Object.entries(found.facts).filter(([k]) => k.startsWith("f_")));
    card.replaceChildren(el("h2", {}, `nucleus ${found.facts.image}:${found.facts.id}`),
      await thumb(row, typed.get(row) ?? found.facts.type ?? ""), factList(own),
      Object.keys(features).length > 0 && el("details", {}, el("summary", {}, "features"), factList(features)),
      el("h2", {}, "nearest neighbours"), el("div", { class: "thumbs" }, ...pictures));
    refresh();
  });

  // Types --------------------------------------------------------------------------------------

  const isChanged = () => JSON.stringify([...typed]) !== saved;

  function give(name) {
    if (chosen < 0) return void say("click a nucleus first");
    past.push(JSON.stringify([...typed]));
    typed.set(chosen, name);
    refreshTypes();
    refresh();
  }

  function pick(index) {
    if (index >= types.length) return;
    current = types[index];
    give(current);
  }

  function undo() {
    if (!past.length) return;
    typed = new Map(JSON.parse(past.pop()));
    refreshTypes();
    refresh();
  }

  const store = guarded(async () => {
    const sent = JSON.stringify([...typed]);
    const told = await post("/save", Object.fromEntries(typed));
    saved = sent;
    say(`${told.n} types in ${told.file}`);
    refreshTypes();
  });

  const suggest = guarded(async () => {
    const { rows } = await post("/suggest", [...typed.keys()]);
    if (!rows.length) return void say("every nucleus has a type");
    if (state.has_crops) await fetchSprites(rows.filter((r) => !sprites.get(r)));
    asked.replaceChildren(...await Promise.all(rows.map((r) => thumb(r, ""))));
  });

  function refreshTypes() {
    if (!isTypingTypes) return;
    const counts = new Map();
    for (const name of typed.values()) counts.set(name, (counts.get(name) ?? 0) + 1);
    kinds.replaceChildren(...types.map((name, i) => el("button", {
      class: name === current ? "kind on" : "kind", onclick: () => pick(i),
    }, el("kbd", {}, String(i + 1)), name, el("span", { class: "soft" }, ` ${counts.get(name) ?? 0}`))));
    count.textContent = `${typed.size} types · ${isChanged() ? "not saved" : "saved"} · ${state.file}`;
    save.disabled = !isChanged();
    undoButton.disabled = !past.length;
  }

  // Pointer and keys ---------------------------------------------------------------------------

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [px, py] = at(event), { width, height } = size(), f = Math.exp(-event.deltaY * 0.002);
    const x = (px - width / 2) / scale + cx, y = cy - (py - height / 2) / scale;
    scale = Math.min(Math.max(scale * f, 50), 1e8);
    cx = x - (px - width / 2) / scale;
    cy = y + (py - height / 2) / scale;
    refresh();
  }, { passive: false });
  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const [px, py] = at(event);
    held = { px, py, cx, cy, isMoved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [px, py] = at(event);
    if (Math.hypot(px - held.px, py - held.py) > 4) held.isMoved = true;
    if (!held.isMoved) return;
    cx = held.cx - (px - held.px) / scale;
    cy = held.cy + (py - held.py) / scale;
    refresh();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!held) return;
    const { isMoved } = held;
    held = null;
    if (isMoved) return;
    const [px, py] = at(event);
    let best = -1, least = NEAR_PX / 2;
    for (let i = 0; i < n; i++) {
      if (!isShown(i)) continue;
      const [x, y] = toScreen(i), away = Math.hypot(x - px, y - py);
      if (away < least) [best, least] = [i, away];
    }
    if (best >= 0) choose(best);
  });
  document.addEventListener("keydown", (event) => {
    if (isTypingTypes && (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
      event.preventDefault();
      return void (isChanged() && store());
    }
    if (isTyping(event) || event.ctrlKey || event.metaKey) return;
    if (event.key === "0") fit();
    else if (isTypingTypes && /^[1-9]$/.test(event.key)) pick(Number(event.key) - 1);
    else if (isTypingTypes && event.key.toLowerCase() === "u") undo();
  });
  window.addEventListener("beforeunload", (event) => {
    if (isTypingTypes && isChanged()) event.preventDefault();
  });
  new ResizeObserver(refresh).observe(holder);

  card.replaceChildren(el("p", { class: "soft" }, "click a nucleus to see it"));
  refreshTypes();
  const first = ["subtype", "type"].find((name) => state.columns.some((c) => c.name === name));
  await colour(first ?? state.columns[0].name);
  fit();
});
