"""Answers in OpenAI's own format that show web searches: as lines of the text, and as annotations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kimi_gateway.dialects.chat.answer import JsonAnswer, StreamWriter, told
from kimi_gateway.dialects.chat.search import ShownSearches
from kimi_gateway.net import jsonio
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.search import SearchChunk


class SearchingStreamWriter(StreamWriter):
    """One delta with all annotations comes right before the finish reason."""

    def __init__(self, identity: Identity, include_usage: bool, lines: bool) -> None:
        super().__init__(identity, include_usage)
        self._shown = ShownSearches(lines)

    def add(self, chunks: list[Chunk]) -> bytes:
        return super().add([made for chunk in chunks for made in self._made(chunk)])

    def _made(self, chunk: Chunk) -> list[Chunk]:
        if isinstance(chunk, SearchChunk):
            text = self._shown.found(chunk.call, streaming=True) if chunk.call.done else ""
            return [_delta({"content": text})] if text else []
        made = [with_text(chunk, self._shown)]
        if chunk.finishes and (annotations := self._shown.annotations()):
            made.insert(0, _delta({"annotations": annotations}))
        return made


class SearchingJsonAnswer(JsonAnswer):
    """With the lines in a footer."""

    def __init__(self, identity: Identity, lines: bool) -> None:
        super().__init__(identity)
        self._shown = ShownSearches(lines)

    def add(self, chunks: list[Chunk]) -> None:
        shown = []
        for chunk in chunks:
            if not isinstance(chunk, SearchChunk):
                shown.append(with_text(chunk, self._shown))
            elif chunk.call.done:
                self._shown.found(chunk.call, streaming=False)
        super().add(shown)

    def end(self, usage: dict[str, Any]) -> bytes:
        answer = self._collector.answer()
        footer = self._shown.footer()
        for choice in answer["choices"]:
            message = choice["message"]
            if footer:
                message["content"] = (message.get("content") or "") + footer
            if annotations := self._shown.annotations():
                message["annotations"] = annotations
        body = self._identity.put_on(answer, "chat.completion")
        return jsonio.dumps({**body, "usage": told(usage)})


def _delta(delta: dict[str, Any]) -> Chunk:
    return Chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}, True, False)


def with_text(chunk: Chunk, shown: ShownSearches) -> Chunk:
    """The chunk with its text as it is shown: it begins a paragraph behind lines."""
    body = chunk.body
    for place, choice in enumerate(body["choices"]):
        text = (choice.get("delta") or {}).get("content")
        if text and (new := shown.text(text)) != text:
            choices = list(body["choices"])
            choices[place] = {**choice, "delta": {**choice["delta"], "content": new}}
            body = {**body, "choices": choices}
    return chunk if body is chunk.body else replace(chunk, body=body, data=b"")
