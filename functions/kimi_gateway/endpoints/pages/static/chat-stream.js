// Server-sent events from a fetch, and what each chunk of a Chat Completion adds to an answer.

const LONGEST = 8 * 1024 * 1024; // characters of one line or event; a longer one is a fault of the sender

/** Reads text/event-stream from bytes that are split anywhere. `add` returns the data of the events that are
 * complete. Rules: the HTML standard, 9.2.6. */
export class EventReader {
  #decoder = new TextDecoder();
  #rest = "";
  #afterCR = false;
  #data = [];
  #size = 0;

  add(bytes) {
    return this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  #take(text) {
    if (this.#afterCR && text.startsWith("\n")) text = text.slice(1);
    if (text) this.#afterCR = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) this.#line(line, events);
    if (this.#rest.length + this.#size > LONGEST) throw new Error("an event of the answer is too large");
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length) events.push(this.#data.join("\n"));
      this.#data = [];
      this.#size = 0;
    } else if (line.startsWith("data:")) {
      const data = line.slice(line[5] === " " ? 6 : 5);
      this.#size += data.length;
      this.#data.push(data);
    }
  }
}

/** The events of a response's body, as arrays of those that arrived together. */
export async function* eventsOf(body) {
  const reader = body.getReader();
  const events = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const complete = events.add(value);
      if (complete.length) yield complete;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Adds a chunk to an answer (conversation.js). Returns whether the chunk brought text, reasoning or a call. */
export function addChunk(answer, chunk) {
  if (chunk.error) throw new StreamError(chunk.error);
  if (chunk.usage) answer.usage = chunk.usage;
  if (chunk.id) answer.request = chunk.id;
  let content = false;
  for (const choice of chunk.choices ?? []) {
    if (choice.index) continue;
    const delta = choice.delta ?? {};
    if (delta.reasoning_content) answer.reasoning += delta.reasoning_content;
    if (delta.content) answer.text += delta.content;
    for (const call of delta.tool_calls ?? []) addCall(answer.calls, call);
    if (delta.annotations) answer.sources.push(...sourcesOf(delta.annotations, answer.sources));
    if (choice.finish_reason) answer.finish = choice.finish_reason;
    content ||= Boolean(delta.reasoning_content || delta.content || delta.tool_calls?.length);
  }
  return content;
}

function addCall(calls, fragment) {
  const known = calls.find((call) => call.index === fragment.index);
  const call = known ?? { index: fragment.index, id: "", name: "", arguments: "" };
  if (!known) calls.push(call);
  call.id ||= fragment.id ?? "";
  call.name ||= fragment.function?.name ?? "";
  call.arguments += fragment.function?.arguments ?? "";
}

/** The cited pages that are not among `known`, each once. Only web addresses count. */
export function sourcesOf(annotations, known = []) {
  const seen = new Set(known.map((source) => source.url));
  const found = [];
  for (const { url_citation: cited } of annotations) {
    if (!cited || !/^https?:\/\//i.test(cited.url) || seen.has(cited.url)) continue;
    seen.add(cited.url);
    found.push({ url: cited.url, title: cited.title || cited.url, text: cited.content ?? "" });
  }
  return found;
}

/** An error that came as an event, when the status was already sent. */
export class StreamError extends Error {
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}
