// From a conversation and the settings to the body of POST /v1/chat/completions.

import { counts } from "./chat-conversation.js";

/** `settings`: model, system, temperature, maxTokens (texts, "" is the model's own), thinking ("" or one of
 * the values that `thinkingChoices` gives), search, tools (a list). */
export function requestOf(conversation, settings) {
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  const body = {
    model: settings.model,
    messages: [...system, ...conversation.turns.filter(counts).map(messageOf)],
    stream: true,
    stream_options: { include_usage: true },
  };
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  if (settings.thinking === "on") body.thinking = { type: "enabled" };
  else if (settings.thinking === "off") body.thinking = { type: "disabled" };
  else if (settings.thinking) body.reasoning_effort = settings.thinking;
  if (settings.search) body.web_search_options = {};
  if (settings.tools.length) body.tools = settings.tools;
  return body;
}

function messageOf(turn) {
  if (turn.role === "tool") return { role: "tool", tool_call_id: turn.call, content: turn.text };
  if (turn.role === "user") {
    if (!turn.files.length) return { role: "user", content: turn.text };
    const text = turn.text ? [{ type: "text", text: turn.text }] : [];
    return { role: "user", content: [...turn.files.map((file) => file.part), ...text] };
  }
  const message = { role: "assistant", content: turn.text };
  if (turn.reasoning) message.reasoning_content = turn.reasoning;
  if (turn.calls.length && turn.state === "done") {
    message.tool_calls = turn.calls.map(({ id, name, arguments: text }) => ({
      id,
      type: "function",
      function: { name, arguments: text },
    }));
  }
  return message;
}

/** The values of the thinking switch for a model of /v1/models: none, on and off, or efforts. */
export function thinkingChoices(model) {
  if (model?.reasoning_control === "switch") return ["on", "off"];
  if (model?.reasoning_control === "effort") return ["low", "high", "max"];
  return [];
}

/** Tools from the text of the settings. Raises SyntaxError or TypeError with a text for the user. */
export function toolsOf(text) {
  if (!text.trim()) return [];
  const given = JSON.parse(text);
  const tools = Array.isArray(given) ? given : [given];
  return tools.map((tool) => {
    const described = tool?.type === "function" ? tool : { type: "function", function: tool };
    if (typeof described.function?.name !== "string") throw new TypeError("name");
    return described;
  });
}

/** What an answer cost in USD by the model's prices per token; null if they are not known. */
export function costOf(usage, model) {
  const prices = model?.pricing;
  if (!usage || !prices || prices.currency !== "USD") return null;
  const cached = Math.min(usage.prompt_tokens_details?.cached_tokens ?? 0, usage.prompt_tokens);
  const input = (usage.prompt_tokens - cached) * prices.prompt + cached * prices.input_cache_read;
  return input + usage.completion_tokens * prices.completion;
}
