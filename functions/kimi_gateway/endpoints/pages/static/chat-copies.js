// The request as text that runs elsewhere: curl, Python with the OpenAI SDK, settings of Claude Code.

export const VARIABLE = "KIMI_GATEWAY_KEY";
const KEY = /^[\x21-\x7e]+$/;

/** `base` is the gateway's address without a path's end, `key` null for a placeholder. */
export function asCurl(base, body, key) {
  const bearer = key ? quoted(`Authorization: Bearer ${checked(key)}`) : `"Authorization: Bearer $${VARIABLE}"`;
  // Its lines are JSON, and no line of JSON is the word that ends the document.
  const document = JSON.stringify(body, null, 2);
  return [
    ...(key ? [] : [`# ${VARIABLE} is the variable with your key`]),
    `curl -sS -N ${quoted(`${base}/v1/chat/completions`)} \\`,
    `  -H ${bearer} \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  --data-binary @- <<'END_OF_REQUEST'`,
    document,
    "END_OF_REQUEST",
    "",
  ].join("\n");
}

const OF_THE_SDK = new Set(
  ("model messages stream stream_options temperature max_tokens reasoning_effort web_search_options tools").split(" "),
);

export function asPython(base, body, key) {
  const own = Object.entries(body).filter(([name]) => OF_THE_SDK.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !OF_THE_SDK.has(name)));
  const options = own.map(([name, value]) => `    ${name}=${literal(value, 4)},`);
  if (Object.keys(extra).length) options.push(`    extra_body=${literal(extra, 4)},`);
  return [
    ...(key ? [] : ["import os", ""]),
    "import openai",
    "",
    "client = openai.OpenAI(",
    `    base_url=${literal(`${base}/v1`)},`,
    `    api_key=${key ? literal(checked(key)) : `os.environ["${VARIABLE}"]`},`,
    ")",
    "answer = client.chat.completions.create(",
    ...options,
    ")",
    "for chunk in answer:",
    "    for choice in chunk.choices:",
    '        print(choice.delta.content or "", end="", flush=True)',
    "print()",
    "",
  ].join("\n");
}

/** What belongs into ~/.claude/settings.json. `window` is the model's, in tokens. */
export function asClaudeCode(base, model, window, key) {
  const env = {
    ANTHROPIC_BASE_URL: base,
    ANTHROPIC_AUTH_TOKEN: key ? checked(key) : "sk-kg-…",
    ANTHROPIC_MODEL: model,
    CLAUDE_CODE_SUBAGENT_MODEL: model,
    ANTHROPIC_DEFAULT_OPUS_MODEL: model,
    ANTHROPIC_DEFAULT_SONNET_MODEL: model,
    ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
    ENABLE_TOOL_SEARCH: "true",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
  };
  if (window && window < 1_000_000) env.CLAUDE_CODE_MAX_CONTEXT_TOKENS = String(window);
  return JSON.stringify({ env }, null, 2) + "\n";
}

function checked(key) {
  if (!KEY.test(key)) throw new Error("not a key");
  return key;
}

/** For a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A value of JSON as Python writes it. JSON's escapes are Python's too; half a surrogate pair is neither. */
export function literal(value, indent = 0) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return JSON.stringify(value.toWellFormed());
  if (typeof value === "number") return String(value);
  const inner = " ".repeat(indent + 4);
  const end = " ".repeat(indent);
  const members = Array.isArray(value)
    ? value.map((each) => literal(each, indent + 4))
    : Object.entries(value)
        .filter(([, each]) => each !== undefined)
        .map(([name, each]) => `${literal(name)}: ${literal(each, indent + 4)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const short = members.join(", ");
  if (short.length <= 70 && !short.includes("\n")) return open + short + close;
  return `${open}\n${members.map((each) => `${inner}${each},\n`).join("")}${end}${close}`;
}
