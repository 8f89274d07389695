// OUT of detect: images with their nuclei.

import { Stage, controls, facts } from "./stage.js";
import { Table, factList } from "./table.js";
import { begin, el, get, guarded, scaled } from "./talk.js";

const MOST = 30000; // outlines drawn at a time; beyond it, centres

begin(async (app) => {
  const state = await get("/state");
  document.title = `${state.title} · nucleoscope`;
  let rings = null, colours = {}, chosen = 0, colourBy = "type";
  const cache = new Map();

  const stage = new Stage({
    draw: (ctx) => overlay(ctx),
    moved: () => load(),
    release: guarded(async (place, event, { isMoved }) => {
      if (isMoved) return;
      const z = stage.isFlat ? -1 : stage.z;
      const { id } = await get("/nucleus", { ...stage.query, z, y: place.y, x: place.x });
      choose(id, false);
    }),
  });
  const panel = controls(stage);
  const table = new Table({ picked: (id) => choose(id, true), filtered: () => stage.refresh() });
  const outlined = el("input", { type: "checkbox", checked: true, onchange: () => stage.refresh() });
  const palette = el("select", { "aria-label": "colour by", onchange: () => {
    colourBy = palette.value;
    legend();
    stage.refresh();
  } });
  const key = el("div", { class: "legend" }), card = el("section", { class: "card" });
  const title = el("p", { class: "soft" }), notices = el("div");
  const images = el("select", {
    "aria-label": "image", onchange: () => open(images.selectedIndex),
  }, ...state.images.map((name) => el("option", {}, name)));

  app.replaceChildren(
    el("div", { class: "left" }, stage.holder, table.box),
    el("aside", {},
      el("h1", {}, state.title), images, title, notices, panel.box,
      el("section", {},
        el("label", { class: "line" }, outlined, "outlines, coloured by ", palette), key),
      card,
      el("p", { class: "soft small" }, "wheel: slice (2D: zoom) · Ctrl or Shift + wheel: zoom · " +
        "drag: move · click: nucleus · 0: whole image · p: maximum over slices")));

  const open = guarded(async (number) => {
    const found = await get("/image", { image: number });
    cache.clear();
    rings = null;
    colours = found.colours;
    table.show(found.columns);
    const choices = table.columns.filter((c) => c.is_number || c.name === "type" ||
      c.name === "subtype").map((c) => c.name).filter((n) => n !== "id");
    palette.replaceChildren(...choices.map((name) => el("option", {}, name)));
    colourBy = choices.includes("type") ? "type" : choices[0];
    palette.value = colourBy;
    title.textContent = facts(found.image);
    notices.replaceChildren(...found.image.notices.map((n) => el("p", { class: "notice" }, n)));
    stage.show(found.image, { image: number });
    panel.fill();
    legend();
    choose(0, false);
    load();
  });

  const load = guarded(async () => {
    const z = stage.isFlat ? -1 : stage.z, image = stage.image;
    if (!image?.has_nuclei) return;
    if (!cache.has(z)) cache.set(z, get("/outlines", { ...stage.query, z }));
    const found = await cache.get(z);
    if (image !== stage.image || z !== (stage.isFlat ? -1 : stage.z)) return;
    rings = found;
    stage.refresh();
  });

  function range() {
    const values = table.by[colourBy].values.filter((v) => v !== null);
    if (colourBy.endsWith("prob") || colourBy === "score") return [0, 1];
    return values.length ? [values.reduce((a, b) => Math.min(a, b)),
      values.reduce((a, b) => Math.max(a, b))] : [0, 1];
  }

  function colourOf() {
    const column = table.by[colourBy];
    if (!column) return () => "#dddddd";
    if (!column.is_number) {
      const own = colourBy === "type" ? colours : wheel(column.values);
      return (row) => own[column.values[row]] ?? "#dddddd";
    }
    const [low, high] = range();
    return (row) => column.values[row] === null ? "#888888"
      : scaled(Math.round(((column.values[row] - low) / (high - low || 1)) * 32) / 32);
  }

  const wheel = (values) => Object.fromEntries([...new Set(values)].sort()
    .map((name, i) => [name, `hsl(${(i * 137.5) % 360} 75% 62%)`]));

  function legend() {
    const column = table.by[colourBy];
    key.replaceChildren();
    if (!column) return;
    if (column.is_number) {
      const [low, high] = range();
      key.append(String(Number(low.toPrecision(4))),
        ...Array.from({ length: 24 }, (_, i) => swatch(scaled(i / 23))),
        String(Number(high.toPrecision(4))));
      return;
    }
    const counts = new Map();
    for (const name of column.values) counts.set(name, (counts.get(name) ?? 0) + 1);
    const own = colourBy === "type" ? colours : wheel(column.values);
    for (const [name, n] of [...counts].sort()) {
      key.append(el("span", { class: "entry" }, swatch(own[name] ?? "#dddddd"),
        `${name || "no type"} ${n.toLocaleString("en")}`));
    }
  }

  function swatch(colour) {
    const dot = el("i", { class: "swatch" });
    dot.style.background = colour;
    return dot;
  }

  function overlay(ctx) {
    if (!rings || !outlined.checked) return;
    const paint = colourOf(), paths = new Map();
    const a = stage.toImage(0, 0), { width, height } = stage.size();
    const b = stage.toImage(width, height);
    const isMany = rings.ids.length > MOST && stage.scale < 0.5;
    for (let i = 0; i < rings.ids.length; i++) {
      const id = rings.ids[i], from = rings.offsets[i], to = rings.offsets[i + 1];
      if (from === to || !table.passing.has(id)) continue;
      const x0 = rings.xy[2 * from] / 2, y0 = rings.xy[2 * from + 1] / 2;
      if (x0 < a.x - 200 || x0 > b.x + 200 || y0 < a.y - 200 || y0 > b.y + 200) continue;
      const colour = paint(table.rowOf.get(id));
      if (!paths.has(colour)) paths.set(colour, new Path2D());
      const path = paths.get(colour);
      if (isMany) {
        const [x, y] = stage.toScreen(y0, x0);
        path.rect(x, y, 2, 2);
      } else trace(path, from, to);
    }
    ctx.lineWidth = 1.4;
    for (const [colour, path] of paths) {
      ctx.strokeStyle = colour;
      ctx.stroke(path);
    }
    const at = rings.ids.indexOf(chosen);
    if (chosen && at >= 0) {
      const path = new Path2D();
      trace(path, rings.offsets[at], rings.offsets[at + 1]);
      ctx.lineWidth = 3.5;
      ctx.strokeStyle = "#fff";
      ctx.stroke(path);
    }
  }

  function trace(path, from, to) {
    for (let j = from; j < to; j++) {
      const [x, y] = stage.toScreen(rings.xy[2 * j + 1] / 2, rings.xy[2 * j] / 2);
      if (j === from) path.moveTo(x, y);
      else path.lineTo(x, y);
    }
    path.closePath();
  }

  function choose(id, isFromTable) {
    chosen = id;
    const row = id ? table.row(id) : null;
    table.choose(row ? id : null);
    if (!row) {
      card.replaceChildren(el("p", { class: "soft" }, "click a nucleus to see its row"));
    } else {
      const depth = stage.image.depth > 1 && row.z_min !== undefined
        ? el("p", {}, `slices ${row.z_min} to ${row.z_max}`) : null;
      card.replaceChildren(el("h2", {}, `nucleus ${id}`), depth,
        depth && ladder(row), factList(row));
      if (isFromTable) stage.goto(row.y, row.x, row.z ?? null, 2);
    }
    stage.refresh();
  }

  // Where in the stack the nucleus lies.
  function ladder(row) {
    const bar = el("div", { class: "ladder", title: "its slices in the stack" }), fill = el("i");
    fill.style.left = `${(100 * row.z_min) / stage.image.depth}%`;
    fill.style.width = `${(100 * (row.z_max - row.z_min + 1)) / stage.image.depth}%`;
    bar.append(fill);
    return bar;
  }

  await open(0);
});
