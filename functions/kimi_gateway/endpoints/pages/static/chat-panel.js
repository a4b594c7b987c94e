// The settings of a conversation, and what can be taken out of it.

import { asClaudeCode, asCurl, asPython } from "./chat-copies.js";
import { modal } from "./chat-composer.js";
import { toolsOf } from "./chat-request.js";
import { copyButton, el, fill, key, money, number, root, short, t } from "./shell.js";

const SHOWN = 20_000; // characters of a text that is shown before it is copied

/** `does` has `restart()`, `exportAs(kind)` and `body()`, the request as it would be sent now. */
export function panel(settings, does) {
  const about = el("p", { class: "hint" });
  const wrong = el("p", { class: "hint wrong", id: "tools-wrong", role: "alert" });
  const field = (name, label, input, hint) => el("div", { class: "labelled" }, el("label", { for: `set-${name}` }, label), input, hint && el("p", { class: "hint", id: `hint-${name}` }, hint));
  const text = (name, more = {}) => el("textarea", { id: `set-${name}`, rows: 3, value: settings[name], oninput: (event) => { settings[name] = event.target.value; }, ...more });
  const amount = (name, more) => el("input", { id: `set-${name}`, type: "number", inputmode: "decimal", value: settings[name], placeholder: t("chat.usual"), oninput: (event) => {
    settings[name] = event.target.validity.valid ? event.target.value : "";
  }, ...more });
  const tools = el("textarea", { id: "set-tools", class: "code", rows: 4, spellcheck: "false", value: settings.toolsText, "aria-label": t("chat.tools"), "aria-describedby": "hint-tools tools-wrong", oninput: () => {
    settings.toolsText = tools.value;
    try {
      settings.tools = toolsOf(tools.value);
      wrong.textContent = "";
    } catch (error) {
      settings.tools = [];
      wrong.textContent = t("chat.tools.bad", { message: error instanceof TypeError ? t("chat.tools.name") : error.message });
    }
    tools.setAttribute("aria-invalid", String(Boolean(wrong.textContent)));
  } });
  const action = (name, step) => el("button", { type: "button", onclick: step }, t(`chat.${name}`));
  const node = el("details", { class: "panel card", open: matchMedia("(min-width: 1000px)").matches },
    el("summary", {}, t("chat.settings")),
    el("div", { class: "fields" },
      about,
      field("system", t("chat.system"), text("system")),
      field("temperature", t("chat.temperature"), amount("temperature", { min: 0, max: 2, step: "any", "aria-describedby": "hint-temperature" }), t("chat.temperature.hint")),
      field("maxTokens", t("chat.tokens"), amount("maxTokens", { min: 1, step: 1 })),
      el("details", { open: Boolean(settings.toolsText) }, el("summary", {}, t("chat.tools")),
        el("div", { class: "labelled" }, tools, el("p", { class: "hint", id: "hint-tools" }, t("chat.tools.hint")), wrong)),
      el("div", { class: "panel-actions" }, action("new", does.restart), action("copyas", () => copies(settings, does)), action("export.markdown", () => does.exportAs("markdown")),
        action("export.json", () => does.exportAs("json"))),
      el("p", { class: "hint" }, t("chat.kept"))));
  return { node, describe: (model) => fill(about, model ? factsOf(model) : "") };
}

function factsOf(model) {
  const facts = [];
  if (model.context_length) facts.push(t("chat.model.context", { n: short(model.context_length).toUpperCase() }));
  if (model.supports_image_in) facts.push(t("chat.model.pictures"));
  if (model.supports_reasoning) facts.push(t("chat.model.reasons"));
  const prices = model.pricing;
  if (prices) {
    const million = (each) => money(each * 1e6, prices.currency);
    facts.push(t("chat.model.price", { input: million(prices.prompt), output: million(prices.completion) }));
  }
  return [el("b", { class: "code" }, model.id), ` · ${facts.join(" · ")}`];
}

/** The dialog with the request as code. */
function copies(settings, does) {
  const base = root.href.replace(/\/$/, "");
  const kinds = {
    curl: (secret) => asCurl(base, does.body(), secret),
    python: (secret) => asPython(base, does.body(), secret),
    claude: (secret) => asClaudeCode(base, settings.model, does.model()?.context_length, secret),
  };
  let kind = "curl";
  const own = el("input", { type: "checkbox", id: "own-key", onchange: () => show() });
  const code = el("pre", { class: "plain", tabindex: 0, role: "region", "aria-label": t("chat.copy.title") });
  const hint = el("p", { class: "hint" });
  const made = () => kinds[kind](own.checked ? key() : null);
  const buttons = Object.keys(kinds).map((each) => el("button", { type: "button", class: "toggle", onclick: () => {
    kind = each;
    show();
  } }, t(`chat.copy.${each}`)));
  const show = () => {
    const text = made();
    code.textContent = text.length > SHOWN ? `${text.slice(0, SHOWN)}\n${t("chat.copy.more", { n: number(text.length - SHOWN) })}` : text;
    const variable = kind !== "claude" && !own.checked;
    hint.textContent = [t(kind === "claude" ? "chat.copy.claude.hint" : "chat.copy.hint"), variable ? t("chat.copy.variable") : ""].join(" ");
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(Object.keys(kinds)[at] === kind)));
  };
  show();
  modal(t("chat.copy.title"), el("div", { class: "stack" }, el("div", { class: "row", role: "group", "aria-label": t("chat.copy.title") }, buttons), hint, code,
    el("div", { class: "row" }, copyButton(made), el("label", { class: "check" }, own, t("chat.copy.key")))));
}
