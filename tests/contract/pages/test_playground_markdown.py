"""A hostile answer does nothing in Chromium, and showing an answer takes work that grows with its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.playground import NOTHING_SEEN, Playground
from upstream import Kimi, ScriptedUpstream

HOSTILE = Path(__file__).with_name("hostile.md").read_text("utf-8").split("\n%%%\n")
TAGS = """P BR HR H1 H2 H3 H4 H5 H6 STRONG EM B I U S DEL SUB SUP KBD MARK BLOCKQUOTE UL OL LI PRE CODE TABLE
THEAD TBODY TR TH TD A DIV SPAN BUTTON"""  # the last three are the page's own frames
ATTRIBUTES = "href title start align target rel tabindex role aria-label class type data-language"
SHOWN = """
return await page.locator('.answer .markdown').last().evaluate((root) => ({
  hurt: window.hurt ?? null,
  tags: [...root.querySelectorAll("*")].map((node) => node.tagName),
  attributes: [...root.querySelectorAll("*")].flatMap((node) => node.getAttributeNames()),
  classes: [...root.querySelectorAll("[class]")].map((node) => node.className),
  links: [...root.querySelectorAll("a")].map((node) => [node.getAttribute("href"), node.rel]),
  address: location.pathname, title: document.title, body: getComputedStyle(document.body).display,
}));
"""


def harmless(shown: Any) -> None:
    assert shown["hurt"] is None
    assert set(shown["tags"]) <= set(TAGS.split())
    assert set(shown["attributes"]) <= set(ATTRIBUTES.split())
    assert set(shown["classes"]) <= {"code-block", "code-head", "scroll", "quiet"}
    for href, rel in shown["links"]:
        assert href is None or href.startswith(("http://", "https://", "mailto:"))
        assert href is None or rel == "noopener noreferrer nofollow"
    assert (shown["address"], shown["body"]) == ("/", "block")


# Shows texts in the page, each on its own: `by` is what makes nodes of a text.
EACH = """
await page.evaluate(async ([texts, by]) => {
  const markdown = await import(new URL("pages/chat-markdown.js", location.href));
  const make = { markdown: (text) => {
    const made = document.createDocumentFragment();
    const view = new markdown.MarkdownView(made, () => {});
    for (let at = 1; at < text.length; at += 7) view.update(text.slice(0, at));
    view.update(text, true);
    return made;
  }, html: markdown.harmless }[by];
  const root = document.body.appendChild(document.createElement("div"));
  root.className = "answer";
  const inner = root.appendChild(document.createElement("div"));
  inner.className = "markdown";
  for (const text of texts) inner.append(make(text));
}, [args.texts, args.by]);
"""


def test_a_hostile_answer_does_nothing(page: Playground, upstream: ScriptedUpstream) -> None:
    """The fixture asserts that nothing ran into the policy and no host was asked."""
    page.open()
    upstream.plan(Kimi("\n\n".join(HOSTILE), "<img src=x onerror='window.hurt=1'>", pieces=40))
    page.send("Be hostile")
    harmless(page.do(SHOWN))
    page.do(EACH, texts=HOSTILE, by="markdown")
    harmless(page.do(SHOWN))
    page.do("for (const link of await page.locator('.markdown a:not([href])').all()) await link.click()")
    assert page.do("return await page.evaluate(() => window.hurt ?? null)") is None
    assert page.do("return await page.evaluate(() => document.querySelectorAll('#main').length)") == 1


def test_the_second_wall_stands_alone(page: Playground) -> None:
    """HTML that comes to DOMPurify as it is, as if the Markdown parser let it through."""
    page.open()
    page.do(EACH, texts=HOSTILE, by="html")
    harmless(page.do(SHOWN))
    # The inert document, in which DOMPurify reads HTML, has the page's policy and says what it forbids.
    said = page.do(NOTHING_SEEN)
    assert [line for line in said if not line.startswith("console: ")] == []


SHAPES = {
    "paragraphs": lambda n: "A sentence of some words, **bold** and `code`.\n\n" * n,
    "code": lambda n: "```python\n" + "x = [value for value in values if value]\n" * n + "```\n",
    "list": lambda n: "- an item with some words in it, of a long list\n" * n,
    "table": lambda n: "| a | b |\n|---|---|\n" + "| one and two | three and four, five |\n" * n,
    "line": lambda n: "word and word and word and word and so on " * n,
    "quotes": lambda n: "> said, and said once more, and then again\n" * n,
    "marks": lambda n: "[" * (14 * n) + "*" * (14 * n) + "`" * (14 * n),
    "deep": lambda n: ">" * (42 * n) + " x",
}
GROW = """
return await page.evaluate(async ([text, step]) => {
  const { MarkdownView } = await import(new URL("pages/chat-markdown.js", location.href));
  const grown = document.createElement("div"), whole = document.createElement("div");
  const view = new MarkdownView(grown, () => {});
  for (let at = step; at < text.length; at += step) view.update(text.slice(0, at));
  view.update(text, true);
  new MarkdownView(whole, () => {}).update(text, true);
  return { work: view.work, renders: view.renders, same: grown.innerHTML === whole.innerHTML };
}, [args.text, args.step]);
"""
FRAME = 40  # characters that a frame of the screen brings


def test_the_work_of_a_growing_answer_is_not_quadratic(page: Playground) -> None:
    """Twice the text takes about twice the work, and looks in the end like the whole text at once. The code
    has about 10,000 tokens."""
    page.open()
    for name, shape in SHAPES.items():
        most = 1000 if name == "code" else 200
        half, full = (page.do(GROW, text=shape(n), step=FRAME) for n in (most // 2, most))
        assert half["same"], name
        assert full["same"], name
        assert full["work"] < 2.5 * half["work"], name
        assert full["work"] < 60 * len(shape(most)), name


PIECES = [
    "# Title\n\nText with [a link][1] and a list:\n\n"
    "1. one\n\n   still one\n2. two\n   ```js\n   let x;\n   ```\n\n[1]: https://example.com/\n",
    "~~~\nopen\n```\nstill\n~~~\nAfter\n\n````md\n```\ninner\n```\n````\nend",
    "a\n===\n\n| x |\n|---|\n| `|` |\n\n- [ ] todo\n- [x] done\n\n***\n<br>&amp; &lt;b&gt; <kbd>k</kbd>",
    "```\nnever closed\nmore",
]


def test_an_answer_that_came_letter_by_letter_looks_like_the_whole(page: Playground) -> None:
    page.open()
    for text in PIECES:
        assert page.do(GROW, text=text, step=1)["same"], text
