// A conversation: its turns, what may be done with them, and how it is exported. It is in memory only.
//
// A turn is one of
//   {id, role: "user", text, files}
//   {id, role: "assistant", model, text, reasoning, calls, sources, state, ...what is known of its end}
//   {id, role: "tool", call, name, text}
// `state` of an answer: "running", "done", "stopped" by the user, or "failed".

let last = 0;

export function userTurn(text, files = []) {
  return { id: ++last, role: "user", text, files };
}

export function answerTurn(model) {
  const empty = { text: "", reasoning: "", calls: [], sources: [], usage: null, finish: null, ignored: [] };
  return { id: ++last, role: "assistant", model, state: "running", ...empty };
}

export function toolTurn(call, text) {
  return { id: ++last, role: "tool", call: call.id, name: call.name, text };
}

export class Conversation {
  turns = [];

  add(...turns) {
    this.turns.push(...turns);
  }

  at(id) {
    return this.turns.findIndex((turn) => turn.id === id);
  }

  /** How many questions and results follow a turn: what its user wrote after it. */
  after(id) {
    return this.turns.slice(this.at(id) + 1).filter((turn) => turn.role !== "assistant").length;
  }

  /** Takes away a turn and all that follow; returns them. */
  cut(id) {
    const at = this.at(id);
    return at < 0 ? [] : this.turns.splice(at);
  }

  /** Deletes a question with all its answers, or an answer with what followed up to the next question. A
   * result of a tool cannot go alone: it goes with its answer. Returns what was deleted. */
  delete(id) {
    let from = this.at(id);
    if (from < 0) return [];
    while (this.turns[from].role === "tool") from -= 1;
    let to = from + 1;
    while (to < this.turns.length && this.turns[to].role !== "user") to += 1;
    return this.turns.splice(from, to - from);
  }

  /** The calls of the last answer that wait for a result. */
  get openCalls() {
    const answered = new Set();
    for (const turn of this.turns.toReversed()) {
      if (turn.role === "tool") answered.add(turn.call);
      else if (turn.role === "user") return [];
      else return turn.state === "done" ? turn.calls.filter((call) => !answered.has(call.id)) : [];
    }
    return [];
  }

  /** Files that turns refer to. */
  get files() {
    return this.turns.flatMap((turn) => turn.files ?? []);
  }
}

/** Whether an answer belongs into the next request: one that failed before its first text does not. */
export function counts(turn) {
  if (turn.role !== "assistant") return true;
  return turn.state === "done" || Boolean(turn.text.trim());
}

export function asJson(conversation, request) {
  const { messages, ...settings } = request;
  const turns = conversation.turns.map(({ id, files, ...turn }) =>
    files?.length ? { ...turn, files: files.map(({ name, kind, size }) => ({ name, kind, size })) } : turn,
  );
  return JSON.stringify({ format: "kimi-gateway-conversation", version: 1, settings, messages, turns }, null, 2);
}

/** The conversation as Markdown. `say` gives the words of the page's language. */
export function asMarkdown(conversation, system, say) {
  const parts = [];
  if (system) parts.push(`## ${say("system")}\n\n${system}`);
  for (const turn of conversation.turns) {
    if (turn.role === "user") {
      const files = turn.files.map((file) => `- ${file.name}\n`).join("");
      parts.push(`## ${say("you")}\n\n${files && `${files}\n`}${turn.text}`);
    } else if (turn.role === "tool") {
      parts.push(`## ${say("toolResult", { name: turn.name })}\n\n${fenced(turn.text)}`);
    } else {
      parts.push(answerAsMarkdown(turn, say));
    }
  }
  return parts.join("\n\n") + "\n";
}

function answerAsMarkdown(turn, say) {
  const parts = [`## ${turn.model}`];
  if (turn.reasoning) parts.push(`> ${say("reasoning")}\n>\n> ${turn.reasoning.trim().replaceAll("\n", "\n> ")}`);
  if (turn.text) parts.push(turn.text.trim());
  for (const call of turn.calls) parts.push(`${say("toolCall")}: \`${call.name}\`\n\n${fenced(call.arguments, "json")}`);
  const sources = turn.sources.map((source, at) => `${at + 1}. [${source.title.replace(/[[\]\\]/g, "\\$&")}](<${source.url}>)`);
  if (sources.length) parts.push(sources.join("\n"));
  return parts.join("\n\n");
}

/** A fence that is longer than any in the text. */
export function fenced(text, language = "") {
  const runs = text.match(/`+/g) ?? [];
  const fence = "`".repeat(Math.max(3, ...runs.map((run) => run.length + 1)));
  return `${fence}${language}\n${text}\n${fence}`;
}
