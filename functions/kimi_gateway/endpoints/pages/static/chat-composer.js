// Where a question is written: text, files, model, reasoning, search, send and stop.

import { fileAt, fileOf, filesIn, sizeText } from "./chat-files.js";
import { thinkingChoices } from "./chat-request.js";
import { chip } from "./chat-view.js";
import { ApiError, announce, api, el, fill, key, openDialog, request, t } from "./shell.js";

export class Composer {
  files = [];
  #running = false;

  models = [];

  /** `does` has `send()`, `stop()` and `changed()`; `settings` is changed in place. */
  constructor(settings, does) {
    this.settings = settings;
    this.does = does;
    this.node = el("form", { class: "composer", onsubmit: (event) => {
      event.preventDefault();
      this.#send();
    } });
    this.field = el("textarea", { id: "message", rows: 1, onkeydown: (event) => this.#key(event), oninput: () => this.#grow(), onpaste: (event) => this.#paste(event) });
    this.chips = el("ul", { class: "chips", hidden: true });
    this.problem = el("div", { role: "alert" });
  }

  get model() {
    return this.models.find((model) => model.id === this.settings.model);
  }

  get text() {
    return this.field.value;
  }

  set text(value) {
    this.field.value = value;
    this.#grow();
  }

  /** `models` are entries of /v1/models. */
  draw(models) {
    const { settings } = this;
    this.models = models;
    this.field.placeholder = t("chat.placeholder");
    this.chips.setAttribute("aria-label", t("chat.files"));
    this.picker = el("input", { type: "file", multiple: true, hidden: true, tabindex: -1, "aria-hidden": "true", onchange: () => {
      this.add([...this.picker.files]);
      this.picker.value = "";
    } });
    this.thinking = el("select", { "aria-label": t("chat.think"), onchange: () => this.#set("thinking", this.thinking.value) });
    const chosen = el("select", { "aria-label": t("chat.model"), onchange: () => this.#set("model", chosen.value) },
      models.map((model) => el("option", { value: model.id, selected: model.id === settings.model }, model.id)));
    const search = el("button", { type: "button", class: "toggle", "aria-pressed": String(settings.search), onclick: () => {
      this.#set("search", !settings.search);
      search.setAttribute("aria-pressed", String(settings.search));
    } }, t("chat.search"));
    this.button = el("button", { type: "submit", class: "primary send" });
    fill(this.node,
      this.problem, this.chips,
      el("label", { for: "message", class: "unseen" }, t("chat.message")), this.field,
      el("div", { class: "tools" },
        this.picker,
        el("button", { type: "button", class: "quiet", onclick: () => this.picker.click() }, t("chat.attach")),
        el("button", { type: "button", class: "quiet", onclick: () => this.#ask() }, t("chat.address")),
        search, el("span", { class: "gap" }), this.thinking, chosen, this.button));
    this.#choices();
    this.#show();
    this.running = this.#running;
  }

  set running(running) {
    this.#running = running;
    this.button.textContent = t(running ? "chat.stop" : "chat.send");
    this.button.classList.toggle("stop", running);
  }

  #set(name, value) {
    this.settings[name] = value;
    if (name === "model") this.#choices();
    this.#blind();
    this.does.changed();
  }

  #choices() {
    const choices = thinkingChoices(this.model);
    if (!choices.includes(this.settings.thinking)) this.settings.thinking = "";
    this.thinking.hidden = !choices.length;
    fill(this.thinking, ["", ...choices].map((value) => el("option", { value, selected: value === this.settings.thinking }, t(`chat.think.${value}`))));
  }

  /** Says that the model does not see what is added. */
  #blind() {
    const seen = this.files.some((file) => ["picture", "video"].includes(file.kind));
    const blind = seen && this.model && this.model.supports_image_in === false;
    this.say(blind ? t("chat.file.blind", { model: this.settings.model }) : "");
  }

  say(text) {
    fill(this.problem, text && el("p", { class: "alert" }, text));
  }

  #send() {
    if (this.#running) return this.does.stop();
    if (this.files.some((file) => file.busy) || (!this.text.trim() && !this.files.length)) return;
    this.does.send();
  }

  /** Takes the question out. */
  take() {
    const taken = { text: this.text.trim(), files: this.files };
    this.text = "";
    this.files = [];
    this.say("");
    this.#show();
    return taken;
  }

  #key(event) {
    // A key that ends the composition of a Chinese word is none of ours.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.#running) this.#send();
    } else if (event.key === "Escape" && this.#running) this.does.stop();
  }

  #grow() {
    this.field.rows = Math.min(10, Math.max(1, this.text.split("\n").length, Math.ceil(this.text.length / 90)));
  }

  #paste(event) {
    const files = filesIn(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    this.add(files);
  }

  /** Adds files of the browser; each is shown while it is read. */
  async add(files) {
    this.say("");
    await Promise.all(files.map((file) => this.#add(file)));
  }

  async #add(file) {
    const waiting = { name: file.name, kind: "document", size: file.size, busy: true, stop: new AbortController() };
    this.files.push(waiting);
    this.#show();
    const as = key();
    const upload = (body) => api("v1/files", { method: "POST", body, signal: waiting.stop.signal, as });
    try {
      const read = { ...(await fileOf(file, upload)), key: as };
      if (this.files.includes(waiting)) this.files[this.files.indexOf(waiting)] = read;
      else forget([read]);
      announce(`${read.name}, ${sizeText(file.size)}`);
    } catch (error) {
      this.files = this.files.filter((each) => each !== waiting);
      if (error instanceof RangeError) this.say(t(`chat.file.${error.message}`, { name: file.name }));
      else if (error.name !== "AbortError") this.say(t("chat.file.failed", { name: file.name, message: error instanceof ApiError ? error.message : "" }));
      this.#show();
      return;
    }
    this.#show();
    this.#blind();
  }

  #show() {
    this.chips.hidden = !this.files.length;
    fill(this.chips, this.files.map((file) => chip(file, () => this.#remove(file))));
    this.does.changed();
  }

  #remove(file) {
    this.files = this.files.filter((each) => each !== file);
    file.stop?.abort();
    forget([file]);
    this.#show();
    this.#blind();
    this.field.focus();
  }

  /** Asks for the address of a file. */
  #ask() {
    const input = el("input", { id: "address", type: "url", autocomplete: "off", required: true, "aria-describedby": "address-hint" });
    const kind = el("select", { id: "address-kind" }, ["", "document", "picture", "video"].map((each) => el("option", { value: each }, t(`chat.kind.${each}`))));
    const problem = el("div", { role: "alert" });
    const add = (event) => {
      event.preventDefault();
      const file = fileAt(input.value.trim(), kind.value);
      if (!file) {
        fill(problem, el("p", { class: "alert" }, t("chat.address.bad")));
        input.focus();
        return;
      }
      this.files.push(file);
      this.#show();
      this.#blind();
      end();
    };
    const end = modal(t("chat.address.title"), el("form", { class: "stack", novalidate: true, onsubmit: add },
      el("p", { class: "hint", id: "address-hint" }, t("chat.address.hint")),
      el("div", { class: "labelled" }, el("label", { for: "address" }, t("chat.address.label")), input),
      el("div", { class: "labelled" }, el("label", { for: "address-kind" }, t("chat.address.kind")), kind),
      problem, el("div", { class: "row" }, el("button", { type: "submit", class: "primary" }, t("chat.address.add")))));
    input.focus();
  }
}

/** Deletes uploads, with the key that made them. They end by themselves if it fails. */
export function forget(files, keepalive = false) {
  for (const file of files) {
    if (file.id) request(`v1/files/${encodeURIComponent(file.id)}`, { method: "DELETE", as: file.key, keepalive }).catch(() => {});
  }
}

/** Opens a dialog and returns what ends it. */
export function modal(title, ...content) {
  const close = el("button", { type: "button", class: "quiet", onclick: () => end() }, t("close"));
  const dialog = el("dialog", { class: "card modal", "aria-label": title },
    el("div", { class: "modal-head" }, el("h2", {}, title), close), content);
  const end = openDialog(dialog);
  return end;
}
