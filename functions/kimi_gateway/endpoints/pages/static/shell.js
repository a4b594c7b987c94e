// What all pages share: header, key, requests, languages, and elements that are safe with hostile data.
import words from "./words/shell.js";

/** The gateway's root, whatever prefix it has: this file is below `pages/`. */
export const root = new URL("../", import.meta.url);

const KEY = "kimi-gateway.key";
const THEMES = ["auto", "light", "dark"];

// Elements -------------------------------------------------------------------------------------------

/** An element. Data goes in as text or attributes, never as HTML. `on…` members are listeners. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Shows a dialog and returns what ends it. It leaves the page in the same step, with any secret that it shows. */
export function openDialog(dialog) {
  const slot = document.activeElement?.dataset.slot;
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (slot && document.activeElement === document.body) focusOn(document, slot); // what opened it was drawn anew
  });
  document.body.append(dialog);
  dialog.showModal();
  return () => {
    dialog.close();
    dialog.remove();
  };
}

/** Puts `children` in place of what a node holds. The focus goes to the new element with the same data-slot. */
export function fill(node, ...children) {
  const slot = node.contains(document.activeElement) && document.activeElement.dataset.slot;
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  if (slot) focusOn(node, slot);
  return node;
}

const focusOn = (node, slot) => node.querySelector(`[data-slot="${CSS.escape(slot)}"]`)?.focus({ preventScroll: true });

// Storage --------------------------------------------------------------------------------------------

function stored(storage, name, value) {
  try {
    const place = window[storage];
    if (value === undefined) return place.getItem(name);
    if (value === null) place.removeItem(name);
    else place.setItem(name, value);
  } catch {
    // Storage is forbidden: what is chosen lasts until the page is left.
  }
  return value ?? null;
}

let secret = stored("sessionStorage", KEY);

/** The key in use, or null. It is in this tab's session storage and nowhere else. */
export const key = () => secret;

export function useKey(value) {
  secret = value || null;
  stored("sessionStorage", KEY, secret);
  header();
}

/** A key's start and end. */
export const masked = (value) => (value.length > 14 ? `${value.slice(0, 6)}…${value.slice(-4)}` : "…");

// Words ----------------------------------------------------------------------------------------------

const table = { en: { ...words.en }, zh: { ...words.zh } };
const redraws = [];
let language = stored("localStorage", "kimi-gateway.language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
if (!(language in table)) language = "en";

/** `{en: {name: text}, zh: {…}}` of a page. */
export function addWords(more) {
  for (const each of Object.keys(table)) Object.assign(table[each], more[each]);
}

/** A text in the chosen language; `{name}` in it stands for a value. */
export function t(name, values = {}) {
  const text = table[language][name] ?? table.en[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, each) => (each in values ? String(values[each]) : whole));
}

/** The first of the texts that exists, for names that come from data. */
export const told = (name, otherwise) => table[language][name] ?? otherwise;

export const locale = () => (language === "zh" ? "zh-CN" : "en-GB");

/** `draw` runs again when the language changes. */
export const onLanguage = (draw) => redraws.push(draw);

function speak(chosen) {
  language = chosen;
  stored("localStorage", "kimi-gateway.language", chosen);
  applyLanguage();
  header();
  for (const draw of redraws) draw();
}

function applyLanguage() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
}

// Numbers and times ----------------------------------------------------------------------------------

export const number = (value) => new Intl.NumberFormat(locale(), { maximumFractionDigits: 1 }).format(value);
export const short = (value) => new Intl.NumberFormat(locale(), { notation: "compact", maximumFractionDigits: 1 }).format(value);
export const percent = (value) => new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(value);

/** Dollars, with as many digits as a small amount needs. */
export function money(value) {
  const digits = value !== 0 && Math.abs(value) < 0.1 ? 6 : 2;
  return new Intl.NumberFormat(locale(), { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol", minimumFractionDigits: 2, maximumFractionDigits: digits }).format(value);
}

export const moment = (value) => new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(value));

/** Seconds in the largest unit that fits. */
export function span(seconds) {
  for (const [unit, size] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) {
    if (seconds >= 2 * size || (unit !== "days" && seconds >= size)) return t(unit, { n: Math.round(seconds / size) });
  }
  return t("seconds", { n: Math.max(0, Math.round(seconds)) });
}

/** A <time> with the distance from now; its title is the moment itself. */
export function when(value) {
  if (!value) return t("never");
  const seconds = (Date.parse(value) - Date.now()) / 1000;
  const text = Math.abs(seconds) < 5 ? t("now") : t(seconds < 0 ? "ago" : "in", { time: span(Math.abs(seconds)) });
  return el("time", { datetime: value, title: moment(value) }, text);
}

// Requests -------------------------------------------------------------------------------------------

/** `status` is 0 if the gateway cannot be reached; `message` is ready to be shown. */
export class ApiError extends Error {
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
    this.wait = 0;
  }
}

/** A request with the key; the Response if it succeeds. `path` is relative to the root. Throws ApiError. */
export async function request(path, { method = "GET", body, headers = {}, signal, keepalive, as = secret } = {}) {
  const sent = { ...headers };
  if (as) sent.authorization = `Bearer ${as}`;
  const raw = body === undefined || body instanceof FormData || typeof body === "string";
  if (!raw) sent["content-type"] ??= "application/json";
  const options = { method, headers: sent, body: raw ? body : JSON.stringify(body), signal, keepalive, cache: "no-store", credentials: "omit", redirect: "error" };
  let response;
  try {
    response = await fetch(new URL(path.replace(/^\/+/, ""), root), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, t("error.network"));
  }
  if (!response.ok) throw await refused(response);
  return response;
}

/** The same; its JSON. */
export async function api(path, options) {
  const response = await request(path, options);
  try {
    return await response.json();
  } catch {
    throw new ApiError(response.status, t("error.status", { status: response.status, message: "?" }));
  }
}

async function refused(response) {
  let details = {};
  try {
    details = (await response.json()).error ?? {};
  } catch {
    // Not JSON: the status has to do.
  }
  const message = String(details.message ?? response.statusText);
  const text = response.status === 401 ? t("error.key", { message }) : t("error.status", { status: response.status, message });
  const error = new ApiError(response.status, text, details);
  error.wait = Number(response.headers.get("retry-after")) || 0;
  if (error.wait) error.message += ` ${t("error.wait", { seconds: error.wait })}`;
  return error;
}

/** Runs `step` now and every `seconds`, later after failures, and not while the page is hidden. `step` gets a
 * signal, and returns nothing. Returns an object with `now()` and `stop()`. */
export function poll(step, seconds) {
  let timer = 0, failures = 0, stopped = false, running = null;
  const plan = () => {
    clearTimeout(timer);
    if (!stopped && !document.hidden) timer = setTimeout(run, Math.min(seconds * 2 ** failures, 300) * 1000);
  };
  const run = async () => {
    clearTimeout(timer);
    running?.abort();
    const mine = (running = new AbortController());
    try {
      await step(mine.signal);
      failures = 0;
    } catch (error) {
      if (mine.signal.aborted) return;
      failures = Math.min(failures + 1, 6);
    }
    if (mine === running) plan();
  };
  const seen = () => (document.hidden ? clearTimeout(timer) : !stopped && run());
  document.addEventListener("visibilitychange", seen);
  run();
  return {
    now: run,
    stop() {
      stopped = true;
      clearTimeout(timer);
      running?.abort();
      document.removeEventListener("visibilitychange", seen);
    },
  };
}

// Parts of pages -------------------------------------------------------------------------------------

/** Puts a text on the clipboard. Without TLS, as in a home's network, browsers allow only the old way, which needs
 * a selected field; `place` is where it may be. */
async function copy(text, place) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = place.appendChild(el("textarea", { class: "unseen", value: text, "aria-hidden": "true", tabindex: -1 }));
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("not allowed");
}

/** A button that copies a text. */
export function copyButton(text, label = t("copy")) {
  const button = el("button", { type: "button", class: "quiet", onclick: async () => {
    try {
      await copy(typeof text === "function" ? text() : text, button.parentNode);
      button.focus();
      button.textContent = t("copied");
    } catch {
      button.textContent = t("copy.failed");
    }
    announce(button.textContent);
    setTimeout(() => { button.textContent = label; }, 2000);
  } }, label);
  return button;
}

const live = el("p", { class: "unseen", role: "status" });

/** Says a text to screen readers. */
export function announce(text) {
  live.textContent = text;
}

/** An error to show in a page; `polls`: the page tries again by itself. */
export const alertOf = (error, polls = false) => el("p", { class: "alert", role: "alert" }, error.message, polls && ` ${t("error.polls")}`);

/** The form that asks for a key. `check` gets the key and throws ApiError if it does not do; then `used` runs. */
export function keyForm({ title = t("key.title"), hint = t("key.hint"), check, used }) {
  const input = el("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", "aria-describedby": "key-hint", class: "code", required: true });
  const problem = el("div");
  const button = el("button", { type: "submit", class: "primary" }, t("key.use"));
  const show = el("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => {
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    show.textContent = t(shown ? "key.hide" : "key.show");
    show.setAttribute("aria-pressed", String(shown));
  } }, t("key.show"));
  const send = async (event) => {
    event.preventDefault();
    const given = input.value.trim();
    if (!/^[\x21-\x7e]+$/.test(given)) return fill(problem, alertOf({ message: t(given ? "key.form" : "key.empty") }));
    button.disabled = true;
    try {
      await check(given);
      useKey(given);
      used();
    } catch (error) {
      fill(problem, alertOf(error));
      input.focus();
    } finally {
      button.disabled = false;
    }
  };
  return el("form", { class: "card key-form", onsubmit: send, novalidate: true },
    el("h1", {}, title),
    el("label", { for: "key" }, t("key.label")),
    el("div", { class: "row" }, input, show, button),
    el("p", { id: "key-hint", class: "hint" }, hint),
    problem);
}

let page = "", forgotten = () => location.reload();
const top = el("header", { class: "top" });

function header() {
  if (!page) return;
  const at = (name, path) => el("a", { href: new URL(path, root).href, "aria-current": name === page ? "page" : null }, t(`nav.${name}`));
  const theme = document.documentElement.dataset.theme ?? "auto";
  const other = language === "zh" ? "en" : "zh";
  fill(top,
    el("a", { class: "skip", href: "#main", onclick: (event) => {
      event.preventDefault(); // the address may name a part of the page
      document.querySelector("main").focus();
    } }, t("skip")),
    el("div", { class: "bar" },
      el("span", { class: "brand" }, el("img", { src: new URL("pages/mark.svg", root).href, alt: "", width: 26, height: 26 }), el("span", {}, "Kimi Gateway")),
      el("nav", { "aria-label": t("nav.label") }, at("chat", "./"), at("credits", "my-credits"), at("admin", "admin")),
      el("div", { class: "settings" },
        secret && el("span", { class: "key-in-use" }, el("span", { class: "code" }, masked(secret)),
          el("button", { type: "button", class: "quiet", onclick: () => { useKey(null); forgotten(); } }, t("key.forget"))),
        el("select", { "aria-label": t("theme.label"), onchange: (event) => choose(event.target.value) },
          THEMES.map((each) => el("option", { value: each, selected: each === theme }, t(`theme.${each}`)))),
        el("button", { type: "button", class: "quiet", lang: other === "zh" ? "zh-Hans" : "en", onclick: () => speak(other) }, t("language.other"),
          el("span", { class: "unseen" }, ` ${t("language.switch")}`)))));
}

const themed = [];

/** `draw` runs again when the colours change, for what is drawn on a canvas. */
export const onTheme = (draw) => themed.push(draw);

function choose(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  stored("localStorage", "kimi-gateway.theme", theme === "auto" ? null : theme);
  for (const draw of themed) draw();
}

/** Puts the header on the page. `name` is chat, credits or admin; `forget` runs when the key is forgotten. */
export function start(name, more, forget) {
  page = name;
  if (more) addWords(more);
  if (forget) forgotten = forget;
  applyLanguage();
  header();
  document.body.prepend(top);
  document.body.append(live);
  addEventListener("pageshow", (event) => {
    if (!event.persisted || stored("sessionStorage", KEY) === secret) return;
    useKey(stored("sessionStorage", KEY)); // it was forgotten or changed on the page that Back has left
    forgotten();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themed.forEach((draw) => draw()));
}
