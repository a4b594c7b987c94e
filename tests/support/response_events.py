"""The events of a streamed response, held to what OpenAI's types and order of events say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from support import sdks

Event = dict[str, Any]
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
# A delta's kind, and the member of its `done` event and of the finished item or part that holds the whole.
WHOLE = {
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_summary_text": "text",
    "function_call_arguments": "arguments",
    "custom_tool_call_input": "input",
}


@cache
def event_type() -> TypeAdapter[Any]:
    return TypeAdapter(sdks.openai.types.responses.ResponseStreamEvent)


def events_of(stream: bytes) -> list[Event]:
    """Each frame has its name and its data, which say the same; comments are no events."""
    events = []
    for frame in stream.decode().split("\n\n")[:-1]:
        if frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert stream.endswith(b"\n\n") or not stream
    return events


@dataclass
class _Open:
    item: Event
    text: str = ""
    parts: list[Event] = field(default_factory=list)
    part_open: bool = False
    told: bool = False  # the whole text was told


class Checker:
    """Fed with events in order; `response` is what they came to."""

    def __init__(self) -> None:
        self.response: Event | None = None
        self.done: dict[int, Event] = {}
        self._open: dict[int, _Open] = {}
        self._count = 0
        self._id = ""
        self._error = False

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            assert event["sequence_number"] == self._count, "numbers go up by one from 0"
            event_type().validate_python(event)
            self._one(event["type"], event)
            self._count += 1

    def _one(self, kind: str, event: Event) -> None:
        if self._count < 2:
            assert kind == ("response.created", "response.in_progress")[self._count]
        else:
            assert kind != "response.created"
        if self.response is not None:
            assert (kind, self.response["status"], self._error) == ("error", "failed", False)
            self._error = True
        elif "response" in event:
            self._lifecycle(kind, event["response"])
        else:
            self._of_an_item(kind.removeprefix("response."), event)

    def _lifecycle(self, kind: str, response: Event) -> None:
        sdks.openai.types.responses.Response.model_validate(response)
        self._id = self._id or response["id"]
        assert response["id"] == self._id
        assert response["status"] == (kind.removeprefix("response.") if kind in TERMINAL else "in_progress")
        if kind in TERMINAL:
            self.response = response
            if kind != "response.failed":
                assert not self._open, "every item that was added is done"
                assert response["output"] == [self.done[index] for index in sorted(self.done)]
        else:
            assert response["output"] == []

    def _of_an_item(self, kind: str, event: Event) -> None:
        index = event["output_index"]
        if kind == "output_item.added":
            assert index == len(self._open) + len(self.done), "items are numbered as they come"
            assert event["item"].get("status", "in_progress") == "in_progress"
            self._open[index] = _Open(event["item"])
            return
        here = self._open[index]
        if kind == "output_item.done":
            self._ends(here, event["item"])
            self.done[index] = event["item"]
            del self._open[index]
            return
        assert event["item_id"] == here.item["id"]
        what, _, step = kind.rpartition(".")
        if what in ("content_part", "reasoning_summary_part"):
            self._part(here, step, event)
            return
        place = event.get("content_index", event.get("summary_index"))
        if place is not None:
            assert here.part_open
            assert place == len(here.parts)
        if step == "delta":
            assert event["delta"]
            assert not here.told
            here.text += event["delta"]
        else:
            assert event[WHOLE[what]] == here.text, "the deltas make up the whole"
            here.told = True

    def _part(self, here: _Open, step: str, event: Event) -> None:
        text = event["part"].get("text", event["part"].get("refusal"))
        assert event.get("content_index", event.get("summary_index")) == len(here.parts)
        if step == "added":
            assert not here.part_open
            assert text == ""
            here.text, here.part_open, here.told = "", True, False
        else:
            assert here.part_open
            assert here.told
            assert text == here.text
            here.parts.append(event["part"])
            here.part_open = False

    def _ends(self, here: _Open, item: Event) -> None:
        assert not here.part_open
        assert item["id"] == here.item["id"]
        assert item["type"] == here.item["type"]
        if item["type"] == "message":
            assert item["content"] == here.parts
        elif item["type"] == "reasoning":
            assert item["summary"] == here.parts
        else:
            assert here.told
            assert item.get("arguments", item.get("input")) == here.text
            assert item["call_id"] == here.item["call_id"]
            assert item["name"] == here.item["name"]


def checked(stream: bytes) -> Event:
    """The response that a whole stream came to."""
    checker = Checker()
    checker.feed(events_of(stream))
    assert checker.response is not None, "a stream ends with what became of the response"
    return checker.response
