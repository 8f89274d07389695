// Clicking nuclei: a point with a slice and a type each.

import { Stage, controls, facts } from "./stage.js";
import { begin, el, get, guarded, isTyping, post, say } from "./talk.js";

const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#7A9CFF",
  "#B5E853", "#FF8FA3"];
const NEAR = 9; // pixels of the screen within which a point is meant

begin(async (app) => {
  const state = await get("/state");
  document.title = `${state.image.name} · clicks`;
  let points = state.points, types = [...state.types], current = 0, chosen = null;
  let past = [], future = [], saved = JSON.stringify(points), regions = [], isSaving = false;

  const stage = new Stage({
    draw: (ctx) => overlay(ctx),
    press: (place, event) => {
      if (event.button !== 0) return true;
      const hit = nearest(place);
      dragged = hit;
      return hit !== null;
    },
    move: (place, event, isHeld) => {
      if (!isHeld || dragged === null) return;
      if (!isDragging) remember();
      isDragging = true;
      change(dragged, { y: clampY(place.y), x: clampX(place.x) });
    },
    release: (place, event, { isMoved }) => {
      const hit = dragged;
      dragged = null;
      if (isDragging) {
        isDragging = false;
        return void refresh();
      }
      if (isMoved) return;
      if (event.button === 2) return void drop(nearest(place));
      if (event.button !== 0) return;
      if (hit !== null) {
        chosen = points[hit].id;
        if (!stage.isFlat || stage.image.depth === 1) stage.setZ(points[hit].z);
        return void refresh();
      }
      add(place);
    },
  });
  let dragged = null, isDragging = false;
  const panel = controls(stage);
  const kinds = el("div", { class: "kinds" }), count = el("p", { class: "soft" });
  const list = el("div", { class: "spots" });
  const save = el("button", { class: "main", onclick: () => store() }, "Save (Ctrl+S)");
  const undoButton = el("button", { onclick: () => undo() }, "Undo (U)");
  const redoButton = el("button", { onclick: () => redo() }, "Redo (Y)");
  const isNear = el("input", { type: "checkbox", checked: true, onchange: () => stage.refresh() });
  const naming = el("input", {
    type: "text", placeholder: "another type", maxLength: 60, "aria-label": "another type",
    onkeydown: (event) => {
      const name = naming.value.trim();
      if (event.key !== "Enter" || !name || types.length >= 9) return;
      if (!types.includes(name)) types.push(name);
      current = types.indexOf(name);
      naming.value = "";
      naming.blur();
      refresh();
    },
  });
  const asking = el("button", { onclick: () => suggest() }, "Where next?");
  app.replaceChildren(
    el("div", { class: "left" }, stage.holder),
    el("aside", {},
      el("h1", {}, state.image.name), el("p", { class: "soft" }, facts(state.image)),
      el("section", {},
        el("div", { class: "line" }, save, undoButton, redoButton), count),
      el("section", {}, el("h2", {}, "Type of the next click"), kinds, naming),
      panel.box,
      state.image.depth > 1 &&
        el("label", { class: "line" }, isNear, "show clicks of slices above and below"),
      el("section", {}, el("div", { class: "line" }, el("h2", {}, "Suggested places"), asking),
        el("p", { class: "soft small" }, state.has_model
          ? "where the model doubts most what it sees" : "where bright blobs are not clicked"), list),
      el("p", { class: "soft small" },
        "click: point · 1–9: type · click a point, then 1–9: its type · drag a point: move · " +
        "right click or Delete: remove · wheel: slice (2D: zoom) · Ctrl or Shift + wheel: zoom")));

  const clampY = (y) => Math.min(Math.max(y, -0.5), state.image.height - 0.5);
  const clampX = (x) => Math.min(Math.max(x, -0.5), state.image.width - 0.5);
  const digits = (v) => Math.round(v * 100) / 100;

  function remember() {
    past.push(JSON.stringify(points));
    if (past.length > 500) past.shift();
    future = [];
  }

  function change(index, more) {
    points = points.map((p, i) => (i === index ? { ...p, ...more } : p));
    refresh();
  }

  function nearest(place) {
    let best = null, least = NEAR / stage.scale;
    points.forEach((p, i) => {
      if (!stage.isFlat && Math.abs(Math.round(p.z) - stage.z) > (isNear.checked ? 1 : 0)) return;
      const away = Math.hypot(p.y - place.y, p.x - place.x);
      if (away < least) [best, least] = [i, away];
    });
    return best;
  }

  function add(place) {
    const { width, height, depth } = state.image;
    if (place.y < -0.5 || place.x < -0.5 || place.y > height - 0.5 || place.x > width - 0.5) return;
    if (stage.isFlat && depth > 1) {
      return void say("a click needs a slice: turn the maximum over slices off (p)", true);
    }
    remember();
    const id = points.reduce((most, p) => Math.max(most, p.id), 0) + 1;
    points = [...points, {
      id, z: stage.z, y: digits(place.y), x: digits(place.x), type: types[current] ?? "",
    }];
    chosen = null;
    refresh();
  }

  function drop(index) {
    if (index === null || index < 0) return;
    remember();
    points = points.filter((_, i) => i !== index);
    chosen = null;
    refresh();
  }

  function step(from, to) {
    if (!from.length) return;
    to.push(JSON.stringify(points));
    points = JSON.parse(from.pop());
    chosen = null;
    refresh();
  }
  const undo = () => step(past, future), redo = () => step(future, past);

  function pickType(index) {
    if (index >= types.length) return;
    current = index;
    const at = points.findIndex((p) => p.id === chosen);
    if (at >= 0 && points[at].type !== types[index]) {
      remember();
      change(at, { type: types[index] });
    }
    refresh();
  }

  const isChanged = () => JSON.stringify(points) !== saved;

  const store = guarded(async () => {
    if (isSaving) return;
    isSaving = true;
    const sent = JSON.stringify(points);
    try {
      const told = await post("/save", points);
      saved = sent;
      say(`${told.n} clicks in ${told.file}`);
    } finally {
      isSaving = false;
      refresh();
    }
  });

  const suggest = guarded(async () => {
    asking.disabled = true;
    asking.textContent = "looking …";
    try {
      regions = (await post("/suggest", points)).regions;
      if (!regions.length) say("nothing is left to suggest");
      list.replaceChildren(...regions.map((r, i) => el("button", { class: "spot", onclick: () => {
        const side = r.y1 - r.y0, { width, height } = stage.size();
        stage.setFlat(false);
        stage.scale = Math.min(width, height) / side / 1.6;
        stage.goto((r.y0 + r.y1 - 1) / 2, (r.x0 + r.x1 - 1) / 2, r.z);
      } }, `${i + 1}`, el("span", { class: "soft" },
        ` ${r.n_nuclei} nuclei not clicked` + (stage.image.depth > 1 ? `, slice ${r.z}` : "")))));
    } finally {
      asking.disabled = false;
      asking.textContent = "Where next?";
      stage.refresh();
    }
  });

  const colourOf = (type) => {
    const at = types.indexOf(type);
    return at < 0 ? "#dddddd" : COLOURS[at % COLOURS.length];
  };

  function refresh() {
    const counts = new Map();
    for (const p of points) counts.set(p.type, (counts.get(p.type) ?? 0) + 1);
    kinds.replaceChildren(...types.map((name, i) => {
      const dot = el("i", { class: "swatch" });
      dot.style.background = colourOf(name);
      return el("button", {
        class: i === current ? "kind on" : "kind", onclick: () => pickType(i),
      }, el("kbd", {}, String(i + 1)), dot, name,
      el("span", { class: "soft" }, ` ${counts.get(name) ?? 0}`));
    }));
    const untyped = counts.get("") ?? 0;
    count.textContent = `${points.length} ${points.length === 1 ? "click" : "clicks"}` + (untyped ? `, ${untyped} without a type` : "") +
      (isChanged() ? " · not saved" : state.is_new && saved === "[]" ? "" : " · saved") +
      ` · ${state.file}`;
    save.disabled = !isChanged();
    undoButton.disabled = !past.length;
    redoButton.disabled = !future.length;
    stage.refresh();
  }

  function overlay(ctx) {
    ctx.lineWidth = 1.5;
    ctx.strokeStyle = "rgba(255,255,255,.75)";
    for (const ring of state.region) {
      ctx.beginPath();
      for (const [y, x] of ring) ctx.lineTo(...stage.toScreen(y, x));
      ctx.closePath();
      ctx.stroke();
    }
    ctx.setLineDash([6, 4]);
    ctx.font = "13px system-ui, sans-serif";
    ctx.textAlign = "left";
    ctx.fillStyle = "#fff";
    regions.forEach((r, i) => {
      const [x0, y0] = stage.toScreen(r.y0 - 0.5, r.x0 - 0.5);
      const [x1, y1] = stage.toScreen(r.y1 - 0.5, r.x1 - 0.5);
      ctx.strokeRect(x0, y0, x1 - x0, y1 - y0);
      ctx.fillText(String(i + 1), x0 + 5, y0 + 16);
    });
    ctx.setLineDash([]);
    for (const p of points) {
      const away = stage.isFlat ? 0 : Math.abs(Math.round(p.z) - stage.z);
      if (away > (isNear.checked ? 2 : 0)) continue;
      const [x, y] = stage.toScreen(p.y, p.x), r = away ? 3.5 : 5.5;
      ctx.globalAlpha = away ? 0.55 : 1;
      ctx.beginPath();
      ctx.arc(x, y, r, 0, 7);
      ctx.strokeStyle = "#000";
      ctx.lineWidth = away ? 2.5 : 4;
      ctx.stroke();
      ctx.strokeStyle = colourOf(p.type);
      ctx.lineWidth = away ? 1.2 : 2;
      ctx.stroke();
      if (p.id === chosen) {
        ctx.beginPath();
        ctx.arc(x, y, r + 4, 0, 7);
        ctx.strokeStyle = "#fff";
        ctx.stroke();
      }
      ctx.globalAlpha = 1;
    }
  }

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
      event.preventDefault();
      return void (isChanged() && store());
    }
    if (isTyping(event)) return;
    const name = event.key.toLowerCase(), isControl = event.ctrlKey || event.metaKey;
    if (name === "u" || (isControl && name === "z" && !event.shiftKey)) undo();
    else if (name === "y" || (isControl && name === "z" && event.shiftKey)) redo();
    else if (isControl) return;
    else if (/^[1-9]$/.test(name)) pickType(Number(name) - 1);
    else if (name === "delete" || name === "backspace") drop(points.findIndex((p) => p.id === chosen));
    else if (name === "escape") { chosen = null; refresh(); }
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => {
    if (isChanged()) event.preventDefault();
  });

  stage.show(state.image);
  panel.fill();
  refresh();
});
