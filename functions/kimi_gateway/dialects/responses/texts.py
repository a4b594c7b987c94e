"""Output items made of text: reasoning (the summary is the whole of it) and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.responses.emitter import Deltas, Place
from kimi_gateway.dialects.responses.seal import seal
from kimi_gateway.pivot.search import Source, cited


class Reasoning:
    """`sealed`: the client also asked for `encrypted_content`."""

    def __init__(self, place: Place, sealed: bool) -> None:
        self.place = place
        self._sealed = sealed
        self._pieces: list[str] = []
        place.added(self.item("in_progress"))
        place.tell("reasoning_summary_part.added", summary_index=0, part=_summary(""))

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self.place.tell("reasoning_summary_text.delta", summary_index=0, delta=text)

    def add_each(self, texts: list[str]) -> None:
        self._pieces += texts
        self.place.tell("reasoning_summary_text.delta", summary_index=0, delta=Deltas(texts))

    def end(self, status: str) -> None:
        text = "".join(self._pieces)
        self.place.tell("reasoning_summary_text.done", summary_index=0, text=text)
        self.place.tell("reasoning_summary_part.done", summary_index=0, part=_summary(text))
        self.place.done(self.item(status))

    def item(self, status: str) -> dict[str, Any]:
        text = "".join(self._pieces)
        whole = {"id": self.place.id, "type": "reasoning", "summary": [_summary(text)] if text else []}
        return {**whole, "encrypted_content": seal(text)} if self._sealed and text else whole


def _summary(text: str) -> dict[str, str]:
    return {"type": "summary_text", "text": text}


@dataclass(slots=True)
class _Part:
    """`kind` is output_text or refusal."""

    kind: str
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        text = "".join(self.pieces)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {
            "type": "output_text",
            "text": text,
            "annotations": self.annotations,
            "logprobs": self.logprobs,
        }


class Message:
    """`sources` are the pages that its text may cite."""

    def __init__(self, place: Place, sources: Sequence[Source] = ()) -> None:
        self.place = place
        self._sources = sources
        self._parts: list[_Part] = []
        place.added(self.item("in_progress"))

    def add(self, kind: str, text: str, logprobs: list[Any]) -> None:
        """Add text to a part of this kind (output_text or refusal). An empty text only begins the part."""
        if not self._parts or self._parts[-1].kind != kind:
            self._end_part()
            self._parts.append(_Part(kind))
            self._tell("content_part.added", part=self._parts[-1].whole())
        if not text:
            return
        part = self._parts[-1]
        part.pieces.append(text)
        if kind == "refusal":
            self._tell("refusal.delta", delta=text)
        else:
            part.logprobs += logprobs
            self._tell("output_text.delta", delta=text, logprobs=logprobs)

    def add_each(self, kind: str, texts: list[str]) -> None:
        """As `add` with each of them, behind another one of this kind."""
        self._parts[-1].pieces += texts
        if kind == "refusal":
            self._tell("refusal.delta", delta=Deltas(texts))
        else:
            self._tell("output_text.delta", delta=Deltas(texts), logprobs=[])

    def _tell(self, kind: str, **members: Any) -> None:
        self.place.tell(kind, content_index=len(self._parts) - 1, **members)

    def _end_part(self) -> None:
        if not self._parts:
            return
        if self._sources:
            self._annotate(self._parts[-1])
        whole = self._parts[-1].whole()
        if whole["type"] == "refusal":
            self._tell("refusal.done", refusal=whole["refusal"])
        else:
            self._tell("output_text.done", text=whole["text"], logprobs=whole["logprobs"])
        self._tell("content_part.done", part=whole)

    def _annotate(self, part: _Part) -> None:
        for index, start, end in cited("".join(part.pieces), self._sources):
            page = self._sources[index]
            place = {"start_index": start, "end_index": end}
            annotation = {"type": "url_citation", "url": page.url, "title": page.title, **place}
            number = len(part.annotations)
            part.annotations.append(annotation)
            self._tell("output_text.annotation.added", annotation=annotation, annotation_index=number)

    def end(self, status: str) -> None:
        self._end_part()
        self.place.done(self.item(status))

    def item(self, status: str) -> dict[str, Any]:
        content = [part.whole() for part in self._parts]
        return {
            "id": self.place.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }
