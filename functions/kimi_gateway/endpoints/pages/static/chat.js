// The playground: a conversation with a model through this gateway. It is in memory only.

import { Composer, forget, modal } from "./chat-composer.js";
import { asJson, asMarkdown, answerTurn, Conversation, toolTurn, userTurn } from "./chat-conversation.js";
import { panel } from "./chat-panel.js";
import { costOf, requestOf } from "./chat-request.js";
import { addChunk, eventsOf, StreamError } from "./chat-stream.js";
import { AnswerView, questionView, resultView } from "./chat-view.js";
import { filesIn } from "./chat-files.js";
import { alertOf, announce, ApiError, api, copyButton, el, fill, key, keyForm, onLanguage, request, root, start, t } from "./shell.js";
import words from "./words/chat.js";

const NEAR = 120; // pixels from the end within which the page follows an answer
const main = document.querySelector("main");
const settings = { model: "", system: "", temperature: "", maxTokens: "", thinking: "", search: false, toolsText: "", tools: [] };
let conversation = new Conversation();
let models = [];
let composer, side, list, hello;
let views = new Map();
let running = null; // {turn, stop}

// The page --------------------------------------------------------------------------------------------

async function open() {
  document.title = `${t("chat.title")} · Kimi Gateway`;
  if (!key()) return askForKey();
  fill(main, el("p", { class: "muted" }, t("loading")));
  try {
    take(await api("v1/models"));
  } catch (error) {
    if (error.status === 401) return askForKey(error);
    fill(main, el("div", { class: "stack" }, alertOf(error), el("p", {}, el("button", { type: "button", onclick: open }, t("chat.again")))));
    return;
  }
  draw();
}

function askForKey(error) {
  const check = async (given) => take(await api("v1/models", { as: given }));
  fill(main, error && alertOf(error), keyForm({ hint: t("chat.key.hint"), check, used: draw }));
}

function take(answer) {
  models = answer.data;
  const ids = models.map((model) => model.id);
  if (!ids.includes(settings.model)) settings.model = ["kimi-k3", "kimi"].find((id) => ids.includes(id)) ?? ids[0] ?? "";
}

function draw() {
  list = el("ol", { class: "turns", "aria-label": t("chat.conversation") });
  side = panel(settings, { restart, exportAs, body: () => requestOf(draft(), settings), model: () => composer.model });
  composer ??= new Composer(settings, { send, stop: () => running?.stop.abort(), changed: () => side.describe(composer.model) });
  composer.draw(models);
  hello = welcome();
  fill(main, el("h1", { class: "unseen" }, t("chat.title")),
    el("div", { class: "chat" }, el("section", { class: "talk", "aria-label": t("chat.conversation") }, hello, list, composer.node), side.node));
  views = new Map();
  for (const turn of conversation.turns) show(turn);
  composer.running = Boolean(running);
  empty();
  if (matchMedia("(pointer: fine)").matches) composer.field.focus({ preventScroll: true });
}

function welcome() {
  const address = new URL("v1", root).href;
  const examples = [1, 2, 3].map((n) => t(`chat.example.${n}`));
  return el("div", { class: "welcome" }, el("p", { class: "hello" }, t("chat.hello")), el("p", { class: "muted" }, t("chat.about")),
    el("p", { class: "row" }, el("code", {}, address), copyButton(address)),
    el("div", { class: "examples" }, examples.map((text) => el("button", { type: "button", onclick: () => {
      composer.text = text;
      composer.field.focus();
    } }, text))),
    el("p", { class: "hint" }, el("a", { href: new URL("health", root).href }, t("chat.health"))));
}

function empty() {
  hello.hidden = conversation.turns.length > 0;
}

/** Adds a turn's view. */
function show(turn) {
  const remove = () => drop(conversation.delete(turn.id));
  let view;
  if (turn.role === "user") view = questionView(turn, { remove, edit: (text) => edit(turn, text) });
  else if (turn.role === "tool") view = resultView(turn);
  else view = new AnswerView(turn, { remove, retry: () => again(turn), open: () => conversation.openCalls, results });
  views.set(turn.id, view);
  list.append(view.node);
  return view;
}

/** Takes away the views and uploads of turns that are no more. */
function drop(turns) {
  running?.stop.abort();
  for (const turn of turns) {
    views.get(turn.id)?.node.remove();
    views.delete(turn.id);
  }
  const kept = new Set(conversation.files.map((file) => file.id));
  forget(turns.flatMap((turn) => turn.files ?? []).filter((file) => !kept.has(file.id)));
  empty();
  composer.field.focus();
}

// What the user does ----------------------------------------------------------------------------------

function send() {
  const { text, files } = composer.take();
  add(userTurn(text, files));
  ask();
}

function add(turn) {
  conversation.add(turn);
  show(turn);
  empty();
}

/** Runs `step`, which takes turns away. Asks first if there are others among them than `turn` and its answer. */
function losing(turn, step) {
  const later = conversation.after(turn.id);
  if (!later) return step();
  const drops = () => {
    end();
    step();
  };
  const end = modal(t("chat.drop.title"), el("p", {}, t("chat.drop", { n: later })),
    el("p", {}, el("button", { type: "button", class: "danger", onclick: drops }, t("chat.drop.do"))));
}

function edit(turn, text) {
  if (running || !(text.trim() || turn.files.length)) return;
  losing(turn, () => replace(turn, text));
}

function replace(turn, text) {
  if (running) return;
  const gone = conversation.cut(turn.id);
  const changed = userTurn(text.trim(), turn.files);
  conversation.add(changed);
  drop(gone);
  show(changed);
  empty();
  ask();
}

function again(turn) {
  if (running) return;
  losing(turn, () => {
    if (running) return;
    drop(conversation.cut(turn.id));
    ask();
  });
}

function results(given) {
  if (running) return;
  const asked = conversation.turns.at(-1);
  for (const [call, text] of given) add(toolTurn(call, text));
  views.get(asked.id).update();
  ask();
}

function restart() {
  drop(conversation.turns.splice(0));
  conversation = new Conversation();
  composer.say("");
}

/** The conversation up to its last question, with what is being written. */
function draft() {
  const shown = new Conversation();
  shown.add(...conversation.turns);
  const files = composer.files.filter((file) => !file.busy);
  if (composer.text.trim() || files.length) shown.add(userTurn(composer.text.trim(), files));
  while (shown.turns.at(-1)?.role === "assistant") shown.turns.pop();
  if (!shown.turns.length) shown.add(userTurn(t("chat.example.1")));
  return shown;
}

function exportAs(kind) {
  const markdown = kind === "markdown";
  const named = { system: "chat.system", you: "chat.you", reasoning: "chat.reasoning", toolCall: "chat.tool.call", toolResult: "chat.tool.result" };
  const say = (word, values) => t(named[word], values);
  const text = markdown ? asMarkdown(conversation, settings.system, say) : asJson(conversation, requestOf(conversation, settings));
  const url = URL.createObjectURL(new Blob([text], { type: markdown ? "text/markdown" : "application/json" }));
  el("a", { href: url, download: `conversation.${markdown ? "md" : "json"}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// An answer -------------------------------------------------------------------------------------------

async function ask() {
  const body = requestOf(conversation, settings);
  const model = composer.model;
  const turn = { ...answerTurn(settings.model), searched: settings.search };
  const stop = new AbortController();
  running = { turn, stop };
  add(turn);
  composer.running = true;
  follow(true);
  const begun = performance.now();
  const since = () => (performance.now() - begun) / 1000;
  const frames = new Frames(() => views.get(turn.id)?.update());
  try {
    await receive(body, turn, stop.signal, since, frames);
    turn.state = "done";
  } catch (error) {
    turn.state = stop.signal.aborted ? "stopped" : "failed";
    if (turn.state === "failed") turn.error = readable(error, turn);
  }
  frames.end();
  turn.seconds = since();
  turn.cost = await spent(turn, model);
  finish(turn);
}

async function receive(body, turn, signal, since, frames) {
  const response = await request("v1/chat/completions", { method: "POST", body, signal });
  turn.requestId = response.headers.get("x-request-id");
  turn.ignored = (response.headers.get("x-param-ignored") ?? "").split(/, ?/).filter(Boolean);
  let ended = false;
  for await (const events of eventsOf(response.body)) {
    for (const data of events) {
      if (data === "[DONE]") ended = true;
      else if (addChunk(turn, JSON.parse(data))) turn.first ??= since();
    }
    if (turn.text && turn.reasoning && turn.thought === undefined) {
      turn.thought = since();
      views.get(turn.id)?.begun();
    }
    frames.plan();
  }
  if (!ended) throw new StreamError({ message: t("chat.incomplete"), code: "service_unavailable" });
}

function readable(error, turn) {
  const shown = error instanceof ApiError ? error : new ApiError(0, error instanceof StreamError ? error.message : t("error.network"), error.error ?? {});
  shown.requestId = turn.requestId;
  return shown;
}

/** USD of an answer. A search has fees beside its tokens, so the account's last cost is asked for. */
async function spent(turn, model) {
  if (turn.searched && turn.state === "done") {
    const status = await api("user/status").catch(() => null);
    if (status?.last_cost_usd) return status.last_cost_usd;
  }
  return costOf(turn.usage, model);
}

function finish(turn) {
  if (running?.turn === turn) {
    running = null;
    composer.running = false;
  }
  const near = isNear();
  views.get(turn.id)?.update();
  follow(near);
  if (turn.state === "failed") announce(t("chat.failed", { text: turn.error.message }));
  else announce(t("chat.done", { text: turn.text.slice(0, 1000) }));
}

/** Draws at most once in a frame of the screen, and less often if drawing takes long. */
class Frames {
  #planned = false;
  #over = false;
  #pause = 0; // milliseconds

  constructor(step) {
    this.step = step;
  }

  plan() {
    if (this.#planned) return;
    this.#planned = true;
    const draw = () => requestAnimationFrame(() => {
      this.#planned = false;
      if (this.#over) return;
      const begun = performance.now(), near = isNear();
      this.step();
      follow(near);
      this.#pause = 4 * (performance.now() - begun);
    });
    if (this.#pause < 16) draw();
    else setTimeout(draw, this.#pause);
  }

  end() {
    this.#over = true;
  }
}

const isNear = () => document.documentElement.scrollHeight - innerHeight - scrollY < NEAR;

function follow(near) {
  if (near) scrollTo({ top: document.documentElement.scrollHeight });
}

// The whole window ------------------------------------------------------------------------------------

for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    if (!composer?.node.isConnected || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    composer.node.classList.toggle("dropping", name === "dragover");
    if (name === "drop") composer.add(filesIn(event.dataTransfer));
  });
}

addEventListener("pagehide", (event) => {
  if (!event.persisted) forget([...conversation.files, ...(composer?.files ?? [])], true);
});

start("chat", words, () => {
  if (composer) {
    restart();
    forget(composer.take().files);
  }
  composer = undefined;
  for (const dialog of document.querySelectorAll("dialog")) dialog.remove();
  open();
});
onLanguage(() => (key() && composer ? draw() : open()));
open();
