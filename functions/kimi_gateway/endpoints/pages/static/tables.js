// Tables and meters, shared by the pages of usage.
import { el, fill, t } from "./shell.js";

/** A table in a frame that scrolls sideways on a narrow screen. `fill` gives it rows; a cell is text or a node. */
export class Table {
  #table = el("table");
  #frame;

  constructor(name) {
    this.#frame = el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": t(name) }, this.#table);
    this.node = this.#frame;
    this.name = name;
  }

  /** `columns` are {title, number}; the first cell of a row is its head. Without rows it says `nothing`. */
  fill(columns, rows, nothing) {
    this.#frame.setAttribute("aria-label", t(this.name));
    const kind = (at) => (columns[at].number ? "number" : null);
    if (!rows.length) return fill(this.#frame, el("p", { class: "muted" }, nothing));
    fill(this.#frame, this.#table);
    return fill(this.#table,
      el("thead", {}, el("tr", {}, columns.map((each, at) => el("th", { scope: "col", class: kind(at) }, each.title)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, at) => el(at ? "td" : "th", { scope: at ? null : "row", class: kind(at) }, cell))))));
  }
}

/** How much of something is left or spent, with a bar. `share` is between 0 and 1; `tight` colours it. */
export function meter({ name, text, share, tight, detail }) {
  const bar = el("span");
  bar.style.width = `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`;
  const told = { role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * share), "aria-valuetext": text };
  return el("li", { class: "gauge" },
    el("div", { class: "gauge-head" }, el("span", {}, name), el("span", { class: "muted" }, text)),
    el("div", { class: tight ? "meter tight" : "meter", ...told }, bar),
    detail && el("p", { class: "hint" }, detail));
}
