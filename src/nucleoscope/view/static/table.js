// A table with a filter and an order. A filter is words such as "type=positive score>0.5 z_min<=3";
// a word without a sign is looked for in every text.

import { el } from "./talk.js";

const SHOWN = 200;

export function parse(text) {
  return text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const hit = /^(.+?)(>=|<=|!=|=|>|<)(.*)$/.exec(word);
    return hit ? { name: hit[1], sign: hit[2], value: hit[3] } : { text: word.toLowerCase() };
  });
}

export class Table {
  // picked(id): a row was clicked; filtered(): other rows pass.
  constructor({ picked, filtered }) {
    this.columns = [];
    this.order = { name: "id", up: true };
    this.filter = el("input", {
      type: "search", placeholder: "type=positive score>0.5", spellcheck: false,
      "aria-label": "filter", oninput: () => { this.apply(); filtered(); },
    });
    this.count = el("span", { class: "soft" });
    this.table = el("table");
    this.picked = picked;
    this.box = el("section", { class: "table" },
      el("div", { class: "line" }, this.filter, this.count),
      el("div", { class: "scroll" }, this.table));
  }

  show(columns) {
    this.columns = columns.filter((c) => c.values.some((v) => v !== null && v !== ""));
    this.by = Object.fromEntries(columns.map((c) => [c.name, c]));
    this.ids = this.by.id ? this.by.id.values : [];
    this.rowOf = new Map(this.ids.map((id, row) => [id, row]));
    this.filter.value = "";
    this.apply();
  }

  passes(row, tests) {
    return tests.every((test) => {
      if (test.text) {
        return this.columns.some((c) => !c.is_number &&
          String(c.values[row]).toLowerCase().includes(test.text));
      }
      const column = this.by[test.name];
      if (!column) return false;
      const value = column.values[row];
      if (value === null) return false;
      const other = column.is_number ? Number(test.value) : test.value;
      return {
        "=": value === other, "!=": value !== other, ">": value > other, "<": value < other,
        ">=": value >= other, "<=": value <= other,
      }[test.sign];
    });
  }

  apply() {
    const tests = parse(this.filter.value);
    const unknown = tests.find((t) => t.name && !this.by[t.name]);
    this.filter.classList.toggle("wrong", Boolean(unknown));
    this.rows = [...this.ids.keys()].filter((row) => this.passes(row, tests));
    this.passing = new Set(this.rows.map((row) => this.ids[row]));
    const total = this.ids.length.toLocaleString("en");
    this.count.textContent = unknown ? `no column ${unknown.name}`
      : `${this.rows.length.toLocaleString("en")} of ${total}`;
    this.sort();
  }

  sort() {
    const column = this.by?.[this.order.name];
    if (column) {
      const way = this.order.up ? 1 : -1;
      const key = (row) => column.values[row];
      this.rows.sort((a, b) => {
        const [p, q] = [key(a), key(b)];
        if (p === null || q === null) return (p === null) - (q === null);
        return (p < q ? -1 : p > q ? 1 : 0) * way;
      });
    }
    this.render();
  }

  render() {
    const shown = this.rows.slice(0, SHOWN);
    const chosen = this.rowOf?.get(this.chosen);
    if (chosen !== undefined && !shown.includes(chosen)) shown.unshift(chosen);
    const head = this.columns.map((c) => el("th", {}, el("button", {
      onclick: () => {
        this.order = { name: c.name, up: this.order.name === c.name ? !this.order.up : true };
        this.sort();
      },
    }, c.name, this.order.name === c.name ? (this.order.up ? " ↑" : " ↓") : "")));
    const body = shown.map((row) => el("tr", {
      class: row === chosen ? "chosen" : "", onclick: () => this.picked(this.ids[row]),
    }, ...this.columns.map((c) => el("td", { class: c.is_number ? "" : "text" },
      show(c.values[row])))));
    this.table.replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
    if (this.rows.length > SHOWN) {
      this.table.append(el("tfoot", {}, el("tr", {}, el("td", { colSpan: this.columns.length },
        `the first ${SHOWN} are listed; filter or sort to see others`))));
    }
  }

  choose(id) {
    this.chosen = id;
    this.render();
    this.table.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  }

  row(id) {
    const row = this.rowOf?.get(id);
    return row === undefined ? null
      : Object.fromEntries(this.columns.map((c) => [c.name, c.values[row]]));
  }
}

export const show = (value) =>
  value === null ? "" : typeof value === "number" && !Number.isInteger(value)
    ? String(Number(value.toPrecision(5))) : String(value);

export function factList(facts) {
  return el("dl", { class: "facts" }, ...Object.entries(facts)
    .filter(([, value]) => value !== null && value !== "")
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, show(value))]));
}
