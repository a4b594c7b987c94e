"""Web search in Chat Completions: options of a request, and the searches in its answer.

Clients ask in five ways: OpenAI's `web_search_options`, the vendor's `$web_search` (which the gateway runs
itself), OpenRouter's tool and plugin, and `use_search` of the first free API for kimi.com.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import Check, fail
from kimi_gateway.pivot.search import RESULTS, SearchCall, SearchOptions, Source

_PLACE = ("city", "region", "country", "timezone")
_TOOLS = ("openrouter:web_search",)  # OpenRouter's server tool (2026-11)
_MOST = 20


def taken(body: dict[str, Any]) -> SearchOptions | None:
    """The search options of a body; their members are removed from it. Raises InvalidRequest.

    None if there are none; `use_search: false` and `"false"` count as none.
    """
    found: list[SearchOptions] = []
    if "use_search" in body and _is_on(body.pop("use_search")):
        found.append(SearchOptions())
    options = body.pop("web_search_options", None)
    if options is not None:
        found.append(_of_openai(options, "web_search_options"))
    found += _of_tools(body)
    found += _of_plugins(body)
    return found[0] if found else None


def _is_on(value: Any) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    fail("use_search", "must be true or false")


def _of_openai(options: Any, where: str) -> SearchOptions:
    fields.mapping(options, where)
    size = options.get("search_context_size") or "medium"
    fields.string(size, f"{where}.search_context_size")
    return SearchOptions(
        results=RESULTS.get(size, RESULTS["medium"]),
        thorough=size == "high",
        location=location(options.get("user_location"), f"{where}.user_location"),
    )


def location(value: Any, where: str) -> str:
    """OpenAI's and Anthropic's place in words, for the tool's description. Raises InvalidRequest."""
    if value is None:
        return ""
    fields.mapping(value, where)
    place = value.get("approximate") if isinstance(value.get("approximate"), dict) else value
    told = []
    for name in _PLACE:
        if (text := place.get(name)) is not None:
            fields.string(text, f"{where}.{name}")
            told.append(" ".join(text[:100].split()))
    return ", ".join(filter(None, told))


def _of_tools(body: dict[str, Any]) -> Iterable[SearchOptions]:
    tools = body.get("tools")
    if not tools:
        return
    kept = []
    for index, tool in enumerate(tools):
        if is_vendors(tool):
            yield SearchOptions()
        elif tool.get("type") in _TOOLS:
            yield _of_openrouter(tool.get("parameters"), f"tools.{index}.parameters")
        else:
            kept.append(tool)
    if len(kept) < len(tools):
        _leave(body, kept)


def is_vendors(tool: Any) -> bool:
    """The vendor's own search, which it takes out of service (2026-10)."""
    function = tool.get("function")
    named = isinstance(function, dict) and function.get("name") == "$web_search"
    return tool.get("type") == "builtin_function" and named


def _leave(body: dict[str, Any], kept: list[Any]) -> None:
    """Without the search tools; a choice that only they could meet goes with them."""
    if kept:
        body["tools"] = kept
        return
    del body["tools"]
    body.pop("tool_choice", None)


def _of_plugins(body: dict[str, Any]) -> Iterable[SearchOptions]:
    plugins = body.pop("plugins", None)
    if plugins is None:
        return
    fields.array(plugins, "plugins")
    for index, plugin in enumerate(plugins):
        fields.mapping(plugin, f"plugins.{index}")
        if plugin.get("id") == "web":
            yield _of_openrouter(plugin, f"plugins.{index}")


def _of_openrouter(options: Any, where: str) -> SearchOptions:
    options = options or {}
    fields.mapping(options, where)
    known = fields.drop_nulls(options, _OPENROUTER)
    fields.apply(known, _OPENROUTER, f"{where}.")
    return SearchOptions(results=min(known.get("max_results", 5), _MOST))


_OPENROUTER: dict[str, Check] = {"max_results": fields.integer(1)}


# The answer. Lines and footer are those of the first free API for kimi.com, with titles escaped.
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
        """After the text's end: of each source its line, else each place where the text has its address."""
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
        content = "".join(self._text)
        spans = []
        for source in self._sources.values():
            at = content.find(source.url)
            end = at + len(source.url) if at >= 0 else self._length
            spans.append((source, at if at >= 0 else self._length, end))
        return spans
