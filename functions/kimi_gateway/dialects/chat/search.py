"""How an answer in OpenAI's own format shows web searches: lines of the text, a footer, annotations.

Lines and footer are those of the first free API for kimi.com, with titles escaped.
"""

from __future__ import annotations

import re
from typing import Any

from kimi_gateway.pivot.search import SearchCall, Source, cited

FOOTER = "\n\n搜索结果来自：\n"
_MARKDOWN = re.compile(r"([\\`*_\[\]<>()#!|~&])")


def line(number: int, source: Source) -> str:
    """`【检索 1】 [title](url)`, in which nothing of the title or address is Markdown of its own."""
    title = _MARKDOWN.sub(r"\\\1", " ".join(source.title.split()))
    return f"【检索 {number}】 [{title}]({address(source.url)})"


def address(url: str) -> str:
    """An address that cannot end its link: blanks, brackets and quotes are percent-encoded."""
    return "".join(ch if ch.isprintable() and ch not in " ()<>[]\\\"'`" else _encoded(ch) for ch in url)


def _encoded(ch: str) -> str:
    return "".join(f"%{byte:02X}" for byte in ch.encode("utf-8", "replace"))


class ShownSearches:
    """The searches in an answer's text and annotations.

    `lines`: the look of the seed; in a stream each source is a line when it is found, in a JSON answer all
    stand in a footer. Without it only the annotations tell. Positions count code points of the whole content.
    """

    def __init__(self, lines: bool) -> None:
        self._lines = lines
        self._sources: dict[str, Source] = {}
        self._spans: list[tuple[Source, int, int]] = []
        self._length = 0
        self._text: list[str] = []
        self._gap = ""  # stands before the next text, which begins a paragraph behind a search

    def text(self, text: str) -> str:
        """A piece of the model's text as it is shown."""
        shown, self._gap = self._gap + text, ""
        return self._written(shown)

    def found(self, call: SearchCall, streaming: bool) -> str:
        """The text that a finished search adds."""
        told = ""
        for source in call.sources if call.kind == "search" else ():
            if source.url in self._sources:
                continue
            self._sources[source.url] = source
            if self._lines and streaming:
                before = "\n" if self._breaks else ""
                told += self._line(len(self._sources), source, before) + self._written("\n")
        self._gap = "\n" if told else "\n\n" if self._breaks else self._gap
        return told

    def footer(self) -> str:
        """The end of a JSON answer."""
        if not self._lines or not self._sources:
            return ""
        told = self._written(FOOTER)
        for number, source in enumerate(self._sources.values(), 1):
            told += self._line(number, source, "") + self._written("\n\n")
        return told

    def annotations(self) -> list[dict[str, Any]]:
        """After the text's end: the line of each source; else the places that cite it, or the text's end."""
        spans = self._spans or self._mentions()
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "url": source.url,
                    "title": source.title,
                    "start_index": start,
                    "end_index": end,
                    "content": source.text[:1_000],
                },
            }
            for source, start, end in spans
        ]

    @property
    def _breaks(self) -> bool:
        return bool(self._text) and not self._text[-1].endswith("\n")

    def _line(self, number: int, source: Source, before: str) -> str:
        told = self._written(before) if before else ""
        start = self._length
        told += self._written(line(number, source))
        self._spans.append((source, start, self._length))
        return told

    def _written(self, text: str) -> str:
        self._length += len(text)
        self._text.append(text)
        return text

    def _mentions(self) -> list[tuple[Source, int, int]]:
        sources = list(self._sources.values())
        places = cited("".join(self._text), sources)
        unused = set(range(len(sources))) - {index for index, _, _ in places}
        places += [(index, self._length, self._length) for index in sorted(unused)]
        return [(sources[index], start, end) for index, start, end in places]
