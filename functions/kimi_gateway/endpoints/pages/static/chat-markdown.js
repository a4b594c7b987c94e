// Markdown of a model to nodes that can do nothing: marked writes HTML, DOMPurify lets through a short list.
//
// A model's text is hostile input. Raw HTML is shown as text (but for a few tags of pure formatting), pictures
// become links, links lead to the web or to mail only. The page's policy forbids inline code and styles too.

const TAGS = (
  "p br hr h1 h2 h3 h4 h5 h6 strong em b i u s del sub sup kbd mark blockquote ul ol li pre code table thead " +
  "tbody tr th td a"
).split(" ");
const PLAIN_TAG = /^<\/?(?:br|b|i|u|s|sub|sup|kbd|mark)\s*\/?>$/i;
const WEB = /^(?:https?:\/\/|mailto:)/i;
const RULES = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["href", "title", "start", "align", "data-language"],
  ALLOWED_URI_REGEXP: WEB,
  ADD_URI_SAFE_ATTR: ["start", "align", "data-language"], // their values are no addresses
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const FENCE = /^ {0,3}(`{3,}|~{3,})([^\n]*)\n/;
const SMALL = 800; // characters of an open block that may be rendered anew with each frame

// Nesting and runs of marks without which nobody writes, and that take the parser quadratic time.
const ABSURD = /(?:> ?|[-*+] ){40}|[[(*_~`]{200}/;

function escaped(text) {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

const renderer = {
  html({ text }) {
    return PLAIN_TAG.test(text.trim()) ? text : escaped(text);
  },
  image({ href, text, title }) {
    const shown = escaped(text || title || href);
    return WEB.test(href) ? `<a href="${escaped(href)}">${shown}</a>` : shown;
  },
  code({ text, lang }) {
    const language = (lang ?? "").match(/^[\w+#.-]{1,30}/)?.[0] ?? "";
    return `<pre data-language="${escaped(language)}"><code>${escaped(text)}\n</code></pre>`;
  },
  checkbox({ checked }) {
    return checked ? "☑ " : "☐ ";
  },
};

let parser = null;

function marked() {
  parser ??= new globalThis.marked.Marked({ gfm: true, renderer });
  return parser;
}

/** HTML from anywhere to a fragment of harmless nodes. */
export function harmless(html) {
  const fragment = globalThis.DOMPurify.sanitize(html, RULES);
  for (const link of fragment.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) continue;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  return fragment;
}

/** Text that the parser cannot read in reasonable time is shown as it is. */
function rendered(markdown) {
  try {
    if (!ABSURD.test(markdown)) return harmless(marked().parse(markdown, { async: false }));
  } catch {
    // It is nested too deeply.
  }
  const fragment = document.createDocumentFragment();
  fragment.append(markdown);
  return fragment;
}

function blocksOf(markdown) {
  try {
    if (!ABSURD.test(markdown)) return marked().lexer(markdown);
  } catch {
    // As above.
  }
  return [{ type: "text", raw: markdown }];
}

/** The rest of the text that begins with an open fence: null if the fence is closed or none. */
function openFence(rest) {
  const found = FENCE.exec(rest);
  if (!found) return null;
  const [head, mark] = found;
  const closing = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}[ \\t]*\\r?\\n`, "m");
  return closing.test(rest.slice(head.length)) ? null : { head, mark, closing, at: head.length };
}

/** Shows a growing text. What is complete is rendered once; only the last block is rendered anew, and ever more
 * rarely as it grows, so that the work grows with the text and not with its square. `finish(fragment)` adds
 * what the page puts around new nodes. */
export class MarkdownView {
  renders = 0;
  work = 0; // characters that were parsed
  #root;
  #finish;
  #text = "";
  #settled = 0; // characters whose nodes are final
  #tail = []; // nodes of the last block
  #drawn = 0; // characters of the last block when it was drawn
  #open = null; // the open fence

  constructor(root, finish) {
    this.#root = root;
    this.#finish = finish;
  }

  /** `text` is the whole text so far. */
  update(text, done = false) {
    this.#text = text;
    if (done) this.#end();
    else if (this.#open) this.#append();
    else this.#draw();
  }

  #draw() {
    const tail = this.#text.length - this.#settled;
    if (tail === this.#drawn || (tail > SMALL && tail < this.#drawn * 1.125)) return;
    const blocks = this.#count(tail, () => blocksOf(this.#text.slice(this.#settled)));
    const last = blocks.findLastIndex((block) => block.type !== "space");
    this.#clear();
    const complete = blocks.slice(0, Math.max(last, 0)).reduce((size, block) => size + block.raw.length, 0);
    this.#settle(complete);
    const rest = this.#text.slice(this.#settled);
    this.#drawn = rest.length;
    this.#open = openFence(rest);
    if (this.#open) this.#begin();
    else this.#tail = this.#show(rest);
  }

  /** Render the next `size` characters for good. */
  #settle(size) {
    if (size) this.#show(this.#text.slice(this.#settled, this.#settled + size));
    this.#settled += size;
  }

  #count(size, step) {
    this.renders += 1;
    this.work += size;
    return step();
  }

  #show(markdown) {
    if (!markdown.trim()) return [];
    const fragment = this.#count(markdown.length, () => rendered(markdown));
    this.#finish(fragment);
    const nodes = [...fragment.childNodes];
    this.#root.append(fragment);
    return nodes;
  }

  #clear() {
    for (const node of this.#tail) node.remove();
    this.#tail = [];
  }

  /** Code that is not closed yet grows in one text node. */
  #begin() {
    this.#tail = this.#show(`${this.#open.head}${this.#open.mark}`);
    const code = this.#tail.find((node) => node.querySelector)?.querySelector("code");
    if (!code) {
      this.#open = null; // no block of code after all
      return;
    }
    code.textContent = "";
    this.#open.text = code.appendChild(document.createTextNode(""));
    this.#append();
  }

  /** Adds complete lines, as an incomplete one may close the fence. */
  #append() {
    const open = this.#open;
    const rest = this.#text.slice(this.#settled + open.at);
    const lines = rest.slice(0, rest.lastIndexOf("\n") + 1);
    if (open.closing.test(lines)) {
      this.#open = null;
      this.#drawn = 0;
      this.#draw();
    } else if (lines) {
      open.text.appendData(lines);
      open.at += lines.length;
    }
  }

  /** The last block once more; all of the text if a block may refer to another one. */
  #end() {
    this.#open = null;
    this.#clear();
    if (/^ {0,3}\[[^\]\n]+\]:/m.test(this.#text)) {
      this.#root.replaceChildren();
      this.#settled = 0;
    }
    this.#settle(this.#text.length - this.#settled);
  }
}
