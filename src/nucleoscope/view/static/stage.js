// The picture of an image: tiles of its channels, tinted and screened over each other, and what
// is drawn over them. Coordinates are pixels of the image, the centre of the first pixel at 0.

import { el, guarded, isTyping, picture } from "./talk.js";

const TILE = 512, KEPT = 320;

export class Stage {
  // query: what each request carries; draw(ctx, stage): what lies over the image;
  // press, move, release (place, event): the pointer, true when it was used.
  constructor({ query = {}, draw = () => {}, press, move, release, moved = () => {} }) {
    Object.assign(this, { query, draw, press, move, release, moved });
    this.tiles = new Map();
    this.z = 0;
    this.isFlat = false;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.canvas = el("canvas", { tabIndex: 0, "aria-label": "image" });
    this.layer = document.createElement("canvas");
    this.holder = el("div", { class: "stage" }, this.canvas);
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.holder);
  }

  show(image, query = {}) {
    this.image = image;
    this.query = query;
    this.tiles.clear();
    this.isFlat = false;
    this.z = Math.floor((image.depth - 1) / 2);
    for (const channel of image.channels) {
      channel.isOn = true;
      channel.lowest = channel.low;
      channel.highest = channel.high;
    }
    this.fit();
  }

  fit() {
    const { width, height } = this.size();
    if (!this.image || !width) return;
    this.scale = Math.min(width / this.image.width, height / this.image.height) * 0.98;
    this.x = (this.image.width - 1) / 2;
    this.y = (this.image.height - 1) / 2;
    this.refresh();
  }

  goto(y, x, z = null, scale = null) {
    this.x = x;
    this.y = y;
    if (z !== null && !this.isFlat) this.setZ(z);
    if (scale) this.scale = Math.max(this.scale, scale);
    this.refresh();
  }

  setZ(z) {
    if (!this.image) return;
    this.isFlat = false;
    this.z = Math.min(Math.max(Math.round(z), 0), this.image.depth - 1);
    this.moved();
    this.refresh();
  }

  setFlat(isFlat) {
    this.isFlat = isFlat && this.image.depth > 1;
    this.moved();
    this.refresh();
  }

  size() {
    return { width: this.holder.clientWidth, height: this.holder.clientHeight };
  }

  resize() {
    const { width, height } = this.size(), dense = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.layer]) {
      canvas.width = Math.max(1, Math.round(width * dense));
      canvas.height = Math.max(1, Math.round(height * dense));
    }
    if (this.image && !this.wasFitted && width) {
      this.wasFitted = true;
      this.fit();
    } else this.refresh();
  }

  // Screen (CSS pixels) from image and back; a pixel's centre is at a whole number.
  toScreen(y, x) {
    const { width, height } = this.size();
    return [(x - this.x) * this.scale + width / 2, (y - this.y) * this.scale + height / 2];
  }

  toImage(px, py) {
    const { width, height } = this.size();
    return {
      x: (px - width / 2) / this.scale + this.x, y: (py - height / 2) / this.scale + this.y,
    };
  }

  refresh() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.paint();
    });
  }

  paint() {
    if (!this.image) return;
    const ctx = this.canvas.getContext("2d"), dense = window.devicePixelRatio || 1;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.globalCompositeOperation = "source-over";
    ctx.fillStyle = "#000";
    ctx.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.image.is_rgb) this.paintChannel(ctx, null, dense);
    else {
      for (const [i, channel] of this.image.channels.entries()) {
        if (!channel.isOn) continue;
        const over = this.layer.getContext("2d");
        over.setTransform(1, 0, 0, 1, 0, 0);
        over.globalCompositeOperation = "source-over";
        over.fillStyle = "#000";
        over.fillRect(0, 0, this.layer.width, this.layer.height);
        this.paintChannel(over, i, dense);
        over.setTransform(1, 0, 0, 1, 0, 0);
        over.globalCompositeOperation = "multiply";
        over.fillStyle = channel.colour;
        over.fillRect(0, 0, this.layer.width, this.layer.height);
        ctx.setTransform(1, 0, 0, 1, 0, 0);
        ctx.globalCompositeOperation = "screen";
        ctx.drawImage(this.layer, 0, 0);
      }
    }
    ctx.setTransform(dense, 0, 0, dense, 0, 0);
    ctx.globalCompositeOperation = "source-over";
    this.draw(ctx, this);
    this.bar(ctx);
  }

  paintChannel(ctx, channel, dense) {
    const dots = this.scale * dense;
    const level = Math.max(0, Math.floor(Math.log2(1 / dots) + 0.01)), side = TILE * 2 ** level;
    const { width, height } = this.size();
    const a = this.toImage(0, 0), b = this.toImage(width, height);
    const clamp = (v, n) => Math.min(Math.max(Math.floor((v + 0.5) / side), 0), n);
    const rows = Math.ceil(this.image.height / side) - 1;
    const columns = Math.ceil(this.image.width / side) - 1;
    ctx.setTransform(dense, 0, 0, dense, 0, 0);
    ctx.imageSmoothingEnabled = dots < 3;
    for (let row = clamp(a.y, rows); row <= clamp(b.y, rows); row++) {
      for (let column = clamp(a.x, columns); column <= clamp(b.x, columns); column++) {
        const tile = this.tile(channel, level, row, column);
        if (!tile) continue;
        const [x, y] = this.toScreen(row * side - 0.5, column * side - 0.5);
        const grow = this.scale * 2 ** level;
        ctx.drawImage(tile, x, y, tile.width * grow, tile.height * grow);
      }
    }
  }

  // A tile, or what was last shown in its place until it is there.
  tile(channel, level, row, column) {
    const z = this.isFlat ? -1 : this.z, c = this.image.channels[channel];
    const query = { ...this.query, channel: channel ?? 0, z, level, row, column };
    if (c) Object.assign(query, { low: c.low, high: c.high });
    const key = JSON.stringify(query), place = `${channel}/${level}/${row}/${column}`;
    this.last ??= new Map();
    if (this.tiles.has(key)) {
      const tile = this.tiles.get(key);
      this.tiles.delete(key);
      this.tiles.set(key, tile);
      if (tile) this.last.set(place, tile);
      return tile ?? this.last.get(place);
    }
    this.tiles.set(key, null);
    const image = this.image;
    guarded(async () => {
      const bitmap = await picture("/tile", query).catch((error) => {
        this.tiles.delete(key);
        throw error;
      });
      if (image !== this.image) return;
      this.tiles.set(key, bitmap);
      while (this.tiles.size > KEPT) this.tiles.delete(this.tiles.keys().next().value);
      this.refresh();
    })();
    return this.last.get(place);
  }

  bar(ctx) {
    const um = this.image.spacing ? this.image.spacing[2] / this.scale : 0;
    if (!um) return;
    const { width, height } = this.size(), target = (width * um) / 6;
    const power = 10 ** Math.floor(Math.log10(target));
    const length = [5, 2, 1].map((s) => s * power).find((s) => s <= target) ?? power;
    const px = length / um, x = width - px - 18, y = height - 20;
    ctx.fillStyle = "rgba(0,0,0,.55)";
    ctx.fillRect(x - 8, y - 20, px + 16, 32);
    ctx.fillStyle = "#fff";
    ctx.fillRect(x, y, px, 3);
    ctx.font = "12px system-ui, sans-serif";
    ctx.textAlign = "center";
    ctx.fillText(`${length} µm`, x + px / 2, y - 6);
  }

  zoom(factor, px, py) {
    const before = this.toImage(px, py);
    this.scale = Math.min(Math.max(this.scale * factor, 0.002), 64);
    const after = this.toImage(px, py);
    this.x += before.x - after.x;
    this.y += before.y - after.y;
    this.refresh();
  }

  listen() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (!this.image) return;
      if (this.image.depth > 1 && !event.ctrlKey && !event.shiftKey) {
        this.wheel = (this.wheel || 0) + event.deltaY;
        if (Math.abs(this.wheel) < 20) return;
        this.setZ(this.z + Math.sign(this.wheel));
        this.wheel = 0;
      } else this.zoom(Math.exp(-(event.deltaY || event.deltaX) * 0.002), ...at(event));
    }, { passive: false });
    let held = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      if (!this.image) return;
      this.canvas.focus();
      this.canvas.setPointerCapture(event.pointerId);
      const [px, py] = at(event);
      held = { px, py, x: this.x, y: this.y, isMoved: false };
      held.isUsed = Boolean(this.press?.(this.toImage(px, py), event));
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.image) return;
      const [px, py] = at(event);
      if (!held) return void this.move?.(this.toImage(px, py), event, false);
      if (Math.hypot(px - held.px, py - held.py) > 4) held.isMoved = true;
      if (!held.isMoved) return;
      if (held.isUsed) return void this.move?.(this.toImage(px, py), event, true);
      this.x = held.x - (px - held.px) / this.scale;
      this.y = held.y - (py - held.py) / this.scale;
      this.refresh();
    });
    this.canvas.addEventListener("pointerup", (event) => {
      if (!held) return;
      const { isMoved, isUsed } = held;
      held = null;
      this.release?.(this.toImage(...at(event)), event, { isMoved, isUsed });
    });
    this.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey || !this.image) return;
      const { width, height } = this.size();
      const keys = {
        ArrowUp: () => this.setZ(this.z + 1), ArrowDown: () => this.setZ(this.z - 1),
        "+": () => this.zoom(1.3, width / 2, height / 2),
        "-": () => this.zoom(1 / 1.3, width / 2, height / 2),
        0: () => this.fit(), p: () => this.setFlat(!this.isFlat),
      };
      if (keys[event.key]) {
        event.preventDefault();
        keys[event.key]();
      }
    });
  }
}

// The controls of a stage: slice, projection, and each channel's colour and contrast.
export function controls(stage) {
  const box = el("section", { class: "controls" });
  const label = el("b"), slider = el("input", {
    type: "range", min: 0, step: 1, oninput: () => stage.setZ(Number(slider.value)),
    "aria-label": "slice",
  });
  const flat = el("input", { type: "checkbox", onchange: () => stage.setFlat(flat.checked) });
  const sync = () => {
    slider.value = stage.z;
    flat.checked = stage.isFlat;
    label.textContent = stage.isFlat ? "all slices" : `slice ${stage.z} of 0–${stage.image.depth - 1}`;
  };
  const before = stage.moved;
  stage.moved = () => {
    if (stage.image) sync();
    before();
  };
  const fill = () => {
    box.replaceChildren();
    if (stage.image.depth > 1) {
      slider.max = stage.image.depth - 1;
      box.append(el("div", { class: "line" }, label), slider,
        el("label", { class: "line" }, flat, "maximum over slices (p)"));
    }
    for (const channel of stage.image.channels) box.append(channelRow(stage, channel));
    sync();
  };
  return { box, fill };
}

function channelRow(stage, channel) {
  const fine = (channel.max - channel.min) / 1000;
  const limit = (name, other, sign) => {
    const input = el("input", {
      type: "range", min: channel.min, max: channel.max, step: fine > 1 ? Math.round(fine) : fine,
      value: channel[name], "aria-label": `${channel.name} ${name}`,
      oninput: () => {
        const value = Number(input.value);
        channel[name] = sign * (channel[other] - value) > 0 ? value : channel[other] - sign * fine;
        text.textContent = shown();
        stage.refresh();
      },
    });
    return input;
  };
  const shown = () => `${Number(channel.low.toPrecision(4))} – ${Number(channel.high.toPrecision(4))}`;
  const text = el("span", { class: "soft" }, shown());
  const low = limit("low", "high", 1), high = limit("high", "low", -1);
  const reset = () => {
    low.value = channel.low = channel.lowest;
    high.value = channel.high = channel.highest;
    text.textContent = shown();
    stage.refresh();
  };
  return el("div", { class: "channel" },
    el("div", { class: "line" },
      el("input", {
        type: "checkbox", checked: channel.isOn, "aria-label": `show ${channel.name}`,
        onchange: (event) => { channel.isOn = event.target.checked; stage.refresh(); },
      }),
      el("input", {
        type: "color", value: channel.colour, "aria-label": `colour of ${channel.name}`,
        oninput: (event) => { channel.colour = event.target.value; stage.refresh(); },
      }),
      el("b", {}, channel.name), text,
      el("button", { class: "small", title: "contrast as at the start", onclick: reset }, "reset")),
    el("div", { class: "two" }, low, high));
}

export const facts = (image) => {
  const size = `${image.width} × ${image.height}` + (image.depth > 1 ? ` × ${image.depth}` : "");
  const scale = image.spacing
    ? `${(image.depth > 1 ? image.spacing : image.spacing.slice(1))
        .map((v) => Number(v.toPrecision(4))).join(" × ")} µm`
    : "scale unknown";
  return `${size} pixels · ${scale}`;
};

