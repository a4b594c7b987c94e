// How turns look. A turn's view is drawn once; an answer that grows is updated in place.

import { MarkdownView } from "./chat-markdown.js";
import { sizeText } from "./chat-files.js";
import { copyButton, el, fill, money, number, t, told } from "./shell.js";

const quiet = (text, onclick, more = {}) => el("button", { type: "button", class: "quiet", onclick, ...more }, text);

/** Puts a head with a copy button on blocks of code, and a frame that scrolls around tables. */
export function framed(fragment) {
  for (const code of fragment.querySelectorAll("pre")) {
    const language = code.dataset.language ?? "";
    code.tabIndex = 0;
    code.setAttribute("role", "region");
    code.setAttribute("aria-label", language ? t("chat.code.of", { language }) : t("chat.code"));
    const head = el("div", { class: "code-head" }, el("span", {}, language), copyButton(() => code.textContent));
    const frame = el("div", { class: "code-block" }, head);
    code.replaceWith(frame);
    frame.append(code);
  }
  for (const table of fragment.querySelectorAll("table")) {
    const frame = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("chat.table") });
    table.replaceWith(frame);
    frame.append(table);
  }
}

/** A file's name, size and, for a picture of this computer, the picture. */
export function chip(file, remove) {
  return el("li", { class: "chip" },
    file.preview ? el("img", { src: file.preview, alt: "", width: 32, height: 32 }) : el("span", { class: "kind", "aria-hidden": "true" }, t(`chat.kind.${file.kind}`)),
    el("span", { class: "name" }, file.name),
    file.size ? el("span", { class: "muted" }, sizeText(file.size)) : null,
    file.busy ? el("span", { class: "muted" }, t("chat.file.busy")) : null,
    remove && quiet("×", remove, { "aria-label": t("chat.file.remove", { name: file.name }) }));
}

/** A question. `does` has `edit(text)` and `remove()`. */
export function questionView(turn, does) {
  const place = el("li", { class: "turn question" });
  const show = () => fill(place,
    el("h2", { class: "unseen" }, t("chat.you")),
    turn.files.length ? el("ul", { class: "chips", "aria-label": t("chat.files") }, turn.files.map((file) => chip(file))) : null,
    turn.text && el("div", { class: "bubble" }, turn.text),
    el("div", { class: "actions" }, quiet(t("chat.edit"), edit), copyButton(turn.text), quiet(t("chat.delete"), does.remove)));
  const edit = () => {
    const field = el("textarea", { "aria-label": t("chat.edit.label"), rows: 4, value: turn.text });
    const cancel = () => {
      show();
      place.querySelector("button").focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) does.edit(field.value);
    });
    fill(place, el("div", { class: "editing" }, field,
      el("div", { class: "row" }, el("button", { type: "button", class: "primary", onclick: () => does.edit(field.value) }, t("chat.edit.send")), quiet(t("cancel"), cancel))));
    field.focus();
  };
  show();
  return { node: place };
}

/** A result that the user gave for a tool's call. */
export function resultView(turn) {
  return { node: el("li", { class: "turn result" }, el("h2", { class: "label" }, t("chat.tool.result", { name: turn.name })), el("pre", { class: "plain", tabindex: 0 }, turn.text)) };
}

/** An answer. `does` has `retry()`, `remove()` and `results(texts)`. `update()` shows what is new. */
export class AnswerView {
  constructor(turn, does) {
    this.turn = turn;
    this.does = does;
    this.label = el("h2", { class: "label" }, turn.model);
    this.thought = document.createTextNode("");
    this.thoughtHead = el("summary", {});
    this.thinking = el("details", { class: "reasoning", hidden: true }, this.thoughtHead, el("div", {}, this.thought));
    this.thoughtHead.addEventListener("click", () => { this.chosen = true; });
    this.text = el("div", { class: "markdown" });
    this.markdown = new MarkdownView(this.text, framed);
    this.wait = el("p", { class: "wait muted" }, t(turn.searched ? "chat.searching" : "chat.waiting"));
    this.after = el("div", { class: "after" });
    this.node = el("li", { class: "turn answer", "aria-busy": "true" }, this.label, this.thinking, this.text, this.wait, this.after);
    this.update();
  }

  update() {
    const { turn } = this;
    const running = turn.state === "running";
    if (turn.reasoning.length > this.thought.length) this.#think();
    if (!running || turn.text) this.markdown.update(turn.text, !running);
    this.wait.hidden = !running || Boolean(turn.text || turn.reasoning || turn.calls.length);
    if (running) return;
    this.node.setAttribute("aria-busy", "false");
    this.thoughtHead.textContent = this.#thoughtLabel();
    if (!this.chosen && (turn.text || turn.calls.length)) this.thinking.open = false;
    fill(this.after, this.#calls(), this.#sources(), this.#problem(), this.#facts(), this.#actions());
  }

  #think() {
    const { turn } = this;
    this.thought.appendData(turn.reasoning.slice(this.thought.length));
    this.thinking.hidden = false;
    this.thoughtHead.textContent = this.#thoughtLabel();
    if (!this.chosen) this.thinking.open = turn.state === "running" && !turn.text;
  }

  /** Closes the reasoning when the text begins, unless the user has opened or closed it. */
  begun() {
    if (!this.chosen) this.thinking.open = false;
    this.thoughtHead.textContent = this.#thoughtLabel();
  }

  #thoughtLabel() {
    const { turn } = this;
    if (turn.state === "running" && !turn.text) return t("chat.thinking");
    return turn.thought >= 1 ? t("chat.reasoning.time", { seconds: number(turn.thought) }) : t("chat.reasoning");
  }

  #calls() {
    const { turn, does } = this;
    if (!turn.calls.length) return null;
    const open = new Set(does.open().map((call) => call.id));
    const fields = [];
    const shown = turn.calls.map((call) => {
      const field = open.has(call.id) && el("textarea", { rows: 2, "aria-label": t("chat.tool.give", { name: call.name }), placeholder: t("chat.tool.give", { name: call.name }) });
      if (field) fields.push([call, field]);
      return el("div", { class: "call" }, el("div", { class: "code-head" }, el("span", {}, t("chat.tool.call")), el("b", { class: "code" }, call.name)),
        el("pre", { class: "plain", tabindex: 0, role: "region", "aria-label": t("chat.tool.arguments", { name: call.name }) }, pretty(call.arguments)), field || null);
    });
    const send = () => does.results(fields.map(([call, field]) => [call, field.value]));
    return el("div", { class: "calls" }, shown, fields.length ? el("button", { type: "button", class: "primary", onclick: send }, t("chat.tool.send")) : null);
  }

  #sources() {
    const { sources } = this.turn;
    if (!sources.length) return null;
    return el("details", { class: "sources", open: true }, el("summary", {}, t("chat.sources", { n: sources.length })),
      el("ol", {}, sources.map((source) => el("li", {},
        el("a", { href: source.url, target: "_blank", rel: "noopener noreferrer nofollow" }, source.title), " ", el("span", { class: "muted" }, hostOf(source.url))))));
  }

  #problem() {
    const { error, state, finish, ignored } = this.turn;
    const notes = [];
    if (state === "failed") notes.push(errorView(error));
    if (state === "stopped") notes.push(el("p", { class: "note" }, t("chat.stopped")));
    if (finish === "length") notes.push(el("p", { class: "note" }, t("chat.cut")));
    if (finish === "content_filter") notes.push(el("p", { class: "note" }, t("chat.filtered")));
    if (ignored.includes("web_search_options")) notes.push(el("p", { class: "note" }, t("chat.unsearched")));
    const others = ignored.filter((name) => name !== "web_search_options");
    if (others.length) notes.push(el("p", { class: "note" }, t("chat.ignored", { names: others.join(", ") })));
    return notes;
  }

  #facts() {
    const { usage, cost, seconds, first, request } = this.turn;
    const facts = [];
    if (usage) {
      const cached = usage.prompt_tokens_details?.cached_tokens;
      facts.push([t("chat.fact.input"), number(usage.prompt_tokens) + (cached ? ` (${t("chat.fact.cached", { n: number(cached) })})` : "")]);
      facts.push([t("chat.fact.output"), number(usage.completion_tokens)]);
    }
    if (cost !== null && cost !== undefined) facts.push([t("chat.fact.cost"), money(cost)]);
    if (first !== undefined) facts.push([t("chat.fact.first"), timeText(first)]);
    if (seconds !== undefined) facts.push([t("chat.fact.time"), timeText(seconds)]);
    if (!facts.length) return null;
    return el("dl", { class: "facts", title: request ? t("chat.request", { id: request }) : null }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  #actions() {
    const { turn, does } = this;
    return el("div", { class: "actions" }, turn.text && copyButton(turn.text), quiet(t("chat.retry"), does.retry), quiet(t("chat.delete"), does.remove));
  }
}

/** What went wrong and what to do about it. */
export function errorView(error) {
  const code = error.details?.code ?? "";
  const advice = told(`chat.advice.${code}`, "");
  const id = error.requestId;
  return el("div", { class: "alert", role: "alert" }, el("p", {}, error.message), advice && el("p", { class: "advice" }, advice), id && el("p", { class: "code request" }, t("chat.request", { id })));
}

const timeText = (seconds) => (seconds < 1 ? t("chat.milliseconds", { n: number(Math.round(seconds * 1000)) }) : t("chat.seconds", { n: number(seconds) }));

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function hostOf(url) {
  return URL.canParse(url) ? new URL(url).host : "";
}
