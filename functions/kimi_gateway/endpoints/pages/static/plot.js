// Plots by uPlot: bars by hour or day in UTC, one above another where a plot has several series.
import { el, fill, locale, money, onTheme } from "./shell.js";

const HOUR = 3600, DAY = 86400;
const ofRoot = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A moment of an axis or a reading. */
function stamp(seconds, step, long) {
  const of = step < DAY ? { hour: "2-digit", minute: "2-digit", ...(long ? { day: "numeric", month: "short" } : {}) } : { day: "numeric", month: "short" };
  return new Intl.DateTimeFormat(locale(), { ...of, timeZone: "UTC", hourCycle: "h23" }).format(new Date(seconds * 1000));
}

/** A figure with a title, a reading and bars. `series` are {name, colour}, from the bottom up; `format` writes a value. */
export class Plot {
  #reading = el("span", { class: "reading" });
  #caption = el("figcaption");
  #frame = el("div", { class: "frame", role: "img" });
  #data = null;
  #drawn = null;
  #width = 0;

  constructor() {
    this.node = el("figure", { class: "plot" }, this.#caption, this.#frame);
    new ResizeObserver(() => this.#resized()).observe(this.#frame);
    onTheme(() => this.#draw());
  }

  /** `times` in unix seconds, `step` between them, and for each series its values. `total` is what it reads at rest. */
  show({ title, total, times, step, series, values, format, most }) {
    const before = this.#data;
    this.#data = { title, total, times, step, series, values, format, most };
    fill(this.#caption, el("span", { class: "name" }, title), this.#reading,
      series.length > 1 && el("span", { class: "legend" }, series.map((each) => el("span", { class: `chip ${each.colour}` }, each.name))));
    this.#reading.textContent = total;
    this.#frame.setAttribute("aria-label", `${title}: ${total}`);
    const same = before && this.#drawn && before.step === step && before.times[0] === times[0] && before.times.length === times.length && before.title === title;
    if (same) this.#drawn.setData(this.#stacked());
    else this.#draw();
  }

  #stacked() {
    const { times, values } = this.#data;
    const sums = values.map((_, at) => times.map((_, place) => values.slice(0, at + 1).reduce((sum, each) => sum + (each[place] ?? 0), 0)));
    return [times, ...sums.reverse()];
  }

  #resized() {
    const width = this.#frame.clientWidth;
    if (width === this.#width || !this.#data) return;
    this.#width = width;
    if (this.#drawn) this.#drawn.setSize({ width, height: 150 });
    else this.#draw();
  }

  #draw() {
    if (!this.#data) return;
    this.#drawn?.destroy();
    this.#drawn = null;
    const width = (this.#width = this.#frame.clientWidth);
    if (!width) return;
    const { times, step, series, format, most } = this.#data;
    const whole = !most && format !== money;
    const uPlot = window.uPlot;
    const axis = { stroke: ofRoot("muted"), font: `12px ${ofRoot("sans")}`, ticks: { show: false }, border: { show: false } };
    const bars = uPlot.paths.bars({ size: [0.7, 40], radius: 0.12 });
    const options = {
      width, height: 150, padding: [10, 4, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: "usage" } },
      scales: { x: { range: [times[0] - step / 2, times.at(-1) + step / 2] }, y: { range: (_, low, high) => (most ? [0, most] : uPlot.rangeNum(0, high || 1, 0.1, true)) } },
      axes: [
        { ...axis, grid: { show: false }, size: 26, gap: 4, space: 64, incrs: step < DAY ? [3 * HOUR, 6 * HOUR, 12 * HOUR] : [DAY, 2 * DAY, 7 * DAY, 14 * DAY],
          values: (_, marks) => marks.map((each) => stamp(each, step)) },
        { ...axis, grid: { stroke: ofRoot("line"), width: 1 }, size: (_, marks) => Math.max(48, 14 + 7 * Math.max(0, ...(marks ?? []).map((each) => each.length))), gap: 6, space: 36, incrs: whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 5e7, 1e8, 1e9] : undefined, values: (_, marks) => marks.map((each) => format(each)) },
      ],
      series: [{}, ...[...series].reverse().map((each) => ({ fill: ofRoot(each.colour), width: 0, paths: bars, points: { show: false } }))],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
    this.#drawn = new uPlot(options, this.#stacked(), this.#frame);
  }

  #read(at) {
    const { times, step, series, values, format, total } = this.#data;
    if (at === null || at === undefined) {
      this.#reading.textContent = total;
      return;
    }
    const told = series.map((each, place) => `${series.length > 1 ? `${each.name} ` : ""}${format(values[place][at] ?? 0)}`);
    this.#reading.textContent = `${stamp(times[at], step, true)} · ${told.join(" · ")}`;
  }
}

/** Rows of /user/usage or /admin/usage, one for each hour or day from the first to now; zeros where there is none. */
export function filled(rows, by, count, now = Date.now() / 1000) {
  const step = by === "hour" ? HOUR : DAY;
  const last = Math.floor(now / step) * step;
  const known = new Map(rows.map((row) => [Date.parse(by === "hour" ? row.hour : `${row.day}T00:00:00Z`) / 1000, row]));
  const times = Array.from({ length: count }, (_, at) => last - (count - 1 - at) * step);
  return { step, times, rows: times.map((time) => known.get(time) ?? {}) };
}

/** A column of such rows. */
export const column = (rows, name) => rows.map((row) => row[name] ?? 0);
