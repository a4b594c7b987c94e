// The playground's modules that need no browser. Run by test_chat_modules.py.

import assert from "node:assert/strict";
import { test } from "node:test";

const STATIC = new URL("../../../../functions/kimi_gateway/endpoints/pages/static/", import.meta.url);
const load = (name) => import(new URL(name, STATIC));
const { EventReader, addChunk, eventsOf, sourcesOf, StreamError } = await load("chat-stream.js");
const { Conversation, answerTurn, asJson, asMarkdown, fenced, toolTurn, userTurn } = await load("chat-conversation.js");
const { costOf, requestOf, thinkingChoices, toolsOf } = await load("chat-request.js");
const { asClaudeCode, literal } = await load("chat-copies.js");
const { fileAt, kindOf, sizeText } = await load("chat-files.js");

const STREAM = '\uFEFF: ping\r\n\r\ndata: {"a":"你好👋"}\r\n\r\ndata:b\rdata: c\r\rid: 7\nevent: x\ndata\ndata: d\n\ndata: lost';
const SETTINGS = { model: "kimi-k3", system: "", temperature: "", maxTokens: "", thinking: "", search: false, tools: [] };
const chunk = (delta, finish = null) => ({ id: "chatcmpl-1", choices: [{ index: 0, delta, finish_reason: finish }] });

test("events are the same wherever the bytes are split", () => {
  const bytes = new TextEncoder().encode(STREAM);
  const wanted = ['{"a":"你好👋"}', "b\nc", "d"];
  for (let first = 0; first <= bytes.length; first += 1) {
    for (const second of [first, first + 1, first + 2, bytes.length]) {
      const reader = new EventReader();
      const parts = [bytes.slice(0, first), bytes.slice(first, second), bytes.slice(second)];
      assert.deepEqual(parts.flatMap((part) => reader.add(part)), wanted, `split at ${first} and ${second}`);
    }
  }
  const reader = new EventReader();
  assert.deepEqual([...bytes].flatMap((byte) => reader.add(Uint8Array.of(byte))), wanted);
});

test("a line without an end is not kept for ever", () => {
  const reader = new EventReader();
  const piece = new Uint8Array(1024 * 1024).fill(97);
  assert.throws(() => {
    for (let at = 0; at < 10; at += 1) reader.add(piece);
  }, /too large/);
});

test("a body is cancelled by who stops to read it", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: 1\n\ndata: 2\n\n")),
    cancel: () => (cancelled = true),
  });
  for await (const events of eventsOf(body)) {
    assert.deepEqual(events.slice(0, 2), ["1", "2"]);
    break;
  }
  assert.ok(cancelled);
});

test("chunks add up to an answer", () => {
  const answer = answerTurn("kimi-k3");
  const call = (index, more) => ({ tool_calls: [{ index, ...more }] });
  const cited = (url, title) => ({ type: "url_citation", url_citation: { url, title, content: "text" } });
  const chunks = [
    chunk({ role: "assistant", content: "" }),
    chunk({ reasoning_content: "Let me " }),
    chunk({ reasoning_content: "think." }),
    chunk({ content: "Hel" }),
    chunk({ content: "lo" }),
    chunk(call(0, { id: "a", type: "function", function: { name: "f", arguments: '{"x"' } })),
    chunk(call(1, { id: "b", type: "function", function: { name: "g", arguments: "" } })),
    chunk(call(0, { function: { arguments: ":1}" } })),
    chunk({ annotations: [cited("https://a.example/", "A"), cited("javascript:alert(1)", "B"), cited("https://a.example/", "C")] }),
    chunk({}, "tool_calls"),
    { choices: [], usage: { prompt_tokens: 3 } },
  ];
  assert.deepEqual(
    chunks.map((each) => addChunk(answer, each)),
    [false, true, true, true, true, true, true, true, false, false, false],
  );
  assert.equal(answer.reasoning, "Let me think.");
  assert.equal(answer.text, "Hello");
  assert.deepEqual(answer.calls, [
    { index: 0, id: "a", name: "f", arguments: '{"x":1}' },
    { index: 1, id: "b", name: "g", arguments: "" },
  ]);
  assert.deepEqual(answer.sources, [{ url: "https://a.example/", title: "A", text: "text" }]);
  assert.equal(answer.finish, "tool_calls");
  assert.deepEqual(answer.usage, { prompt_tokens: 3 });
  assert.throws(() => addChunk(answer, { error: { message: "gone", code: "service_unavailable" } }), StreamError);
  assert.deepEqual(sourcesOf([{ type: "other" }]), []);
});

function talk() {
  const conversation = new Conversation();
  const first = { ...answerTurn("kimi-k3"), state: "done", text: "One", reasoning: "Hm" };
  const calling = { ...answerTurn("kimi-k3"), state: "done", calls: [{ index: 0, id: "c", name: "f", arguments: "{}" }] };
  const result = toolTurn(calling.calls[0], "42");
  const last = { ...answerTurn("kimi-k3"), state: "done", text: "Two" };
  conversation.add(userTurn("1"), first, userTurn("2"), calling, result, last);
  return conversation;
}

test("a conversation becomes messages with reasoning and calls", () => {
  const conversation = talk();
  const file = { name: "a.png", kind: "picture", size: 1, part: { type: "image_url", image_url: { url: "data:," } } };
  const failed = { ...answerTurn("kimi-k3"), state: "failed", error: {} };
  const stopped = { ...answerTurn("kimi-k3"), state: "stopped", text: "Thr", calls: [{ index: 0, id: "d", name: "f", arguments: "{" }] };
  conversation.add(userTurn("3", [file]), failed, stopped);
  assert.deepEqual(requestOf(conversation, { ...SETTINGS, system: "Be brief." }).messages, [
    { role: "system", content: "Be brief." },
    { role: "user", content: "1" },
    { role: "assistant", content: "One", reasoning_content: "Hm" },
    { role: "user", content: "2" },
    {
      role: "assistant",
      content: "",
      tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: "{}" } }],
    },
    { role: "tool", tool_call_id: "c", content: "42" },
    { role: "assistant", content: "Two" },
    { role: "user", content: [file.part, { type: "text", text: "3" }] },
    { role: "assistant", content: "Thr" },
  ]);
});

test("settings are sent only where they differ from the model's own", () => {
  const plain = requestOf(new Conversation(), SETTINGS);
  assert.deepEqual(Object.keys(plain), ["model", "messages", "stream", "stream_options"]);
  const given = { ...SETTINGS, temperature: "0", maxTokens: "100", thinking: "off", search: true, tools: toolsOf('{"name":"f"}') };
  const { temperature, max_tokens, thinking, web_search_options, tools } = requestOf(new Conversation(), given);
  assert.deepEqual([temperature, max_tokens, thinking, web_search_options], [0, 100, { type: "disabled" }, {}]);
  assert.deepEqual(tools, [{ type: "function", function: { name: "f" } }]);
  assert.equal(requestOf(new Conversation(), { ...SETTINGS, thinking: "max" }).reasoning_effort, "max");
  assert.throws(() => toolsOf("{"), SyntaxError);
  assert.throws(() => toolsOf("[1]"), TypeError);
  assert.deepEqual(thinkingChoices({ reasoning_control: "switch" }), ["on", "off"]);
  assert.deepEqual(thinkingChoices({ reasoning_control: null }), []);
});

test("a question goes with its answers, a result with its call", () => {
  const texts = (conversation) => conversation.turns.map((turn) => turn.text);
  const [question, , second, calling, result] = talk().turns;
  for (const [turn, left] of [[question, ["2", "", "42", "Two"]], [second, ["1", "One"]], [calling, ["1", "One", "2"]]]) {
    const conversation = new Conversation();
    const all = talk().turns;
    conversation.add(...all);
    conversation.delete(all.find((each) => each.role === turn.role && each.text === turn.text).id);
    assert.deepEqual(texts(conversation), left);
  }
  const conversation = talk();
  conversation.delete(conversation.turns[4].id);
  assert.deepEqual(texts(conversation), ["1", "One", "2"]);
  assert.equal(result.text, "42");
  assert.equal(conversation.delete(-1).length, 0);
  assert.equal(talk().openCalls.length, 0);
  const open = talk();
  open.cut(open.turns[4].id);
  assert.deepEqual(open.openCalls.map((call) => call.id), ["c"]);
});

test("exports have everything that was said and no file's content", () => {
  const conversation = talk();
  const secret = { name: "a.pdf", kind: "document", size: 5, id: "file-1", preview: "data:x", part: {} };
  conversation.turns[0].files = [secret];
  const exported = JSON.parse(asJson(conversation, requestOf(conversation, SETTINGS)));
  assert.deepEqual(exported.turns[0].files, [{ name: "a.pdf", kind: "document", size: 5 }]);
  assert.equal(exported.settings.model, "kimi-k3");
  const text = asMarkdown(conversation, "Be brief.", (word) => word);
  for (const part of ["Be brief.", "- a.pdf", "> Hm", "One", "`f`", "42", "Two"]) assert.ok(text.includes(part), part);
  assert.equal(fenced("a ```` b"), "`````\na ```` b\n`````");
});

test("the cost follows the prices of a token, cached ones too", () => {
  const model = { pricing: { currency: "USD", prompt: "0.000003", completion: "0.000015", input_cache_read: "0.0000003" } };
  const usage = { prompt_tokens: 1000, completion_tokens: 100, prompt_tokens_details: { cached_tokens: 400 } };
  assert.ok(Math.abs(costOf(usage, model) - (600 * 3e-6 + 400 * 3e-7 + 100 * 15e-6)) < 1e-12);
  assert.equal(costOf(usage, { pricing: null }), null);
  assert.equal(costOf(null, model), null);
  assert.equal(costOf(usage, { pricing: { ...model.pricing, currency: "CNY" } }), null);
});

test("values become Python", () => {
  assert.equal(literal({ a: [true, false, null, 1.5, 'é"\\\n'], b: {}, c: [] }), '{"a": [True, False, None, 1.5, "é\\"\\\\\\n"], "b": {}, "c": []}');
  const long = "x".repeat(80);
  assert.equal(literal([long], 4), `[\n        "${long}",\n    ]`);
  assert.equal(literal("\ud800"), '"\ufffd"');
});

test("settings of Claude Code have a placeholder unless the key is asked for", () => {
  const { env } = JSON.parse(asClaudeCode("https://gateway.example", "kimi-k2.6", 262_144, null));
  assert.equal(env.ANTHROPIC_BASE_URL, "https://gateway.example");
  assert.equal(env.ANTHROPIC_AUTH_TOKEN, "sk-kg-…");
  assert.equal(env.ANTHROPIC_DEFAULT_HAIKU_MODEL, "kimi-k2.6");
  assert.equal(env.CLAUDE_CODE_MAX_CONTEXT_TOKENS, "262144");
  const own = JSON.parse(asClaudeCode("https://gateway.example", "kimi-k3", 1_048_576, "sk-kg-1"));
  assert.equal(own.env.ANTHROPIC_AUTH_TOKEN, "sk-kg-1");
  assert.ok(!("CLAUDE_CODE_MAX_CONTEXT_TOKENS" in own.env));
});

test("kinds of files follow their types and names", () => {
  const kinds = [
    ["a.PNG", "", "picture"], ["a", "image/webp", "picture"], ["a.svg", "image/svg+xml", "text"], ["a.md", "", "text"],
    ["a.mp4", "", "video"], ["a.pdf", "application/pdf", "document"], ["a.docx", "", "document"], ["a", "", "document"],
    ["a.json", "application/json", "text"],
  ];
  for (const [name, type, kind] of kinds) assert.equal(kindOf(name, type), kind, `${name} ${type}`);
  assert.deepEqual(fileAt("https://x.example/a%20b.pdf").part, {
    type: "file",
    file: { filename: "a b.pdf", file_url: "https://x.example/a%20b.pdf" },
  });
  assert.equal(fileAt("https://x.example/p.jpg?x=1").part.image_url.url, "https://x.example/p.jpg?x=1");
  assert.equal(fileAt("https://x.example/%E0%A4%A").name, "%E0%A4%A");
  assert.equal(fileAt("https://x.example/get", "picture").part.type, "image_url");
  for (const bad of ["", "x", "javascript:alert(1)", "file:///etc/passwd", "data:,x"]) assert.equal(fileAt(bad), null);
  assert.deepEqual([sizeText(5), sizeText(5_400), sizeText(5_400_000)], ["5 B", "5 kB", "5.4 MB"]);
});
