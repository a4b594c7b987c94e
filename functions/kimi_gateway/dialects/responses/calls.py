"""A tool call as an output item: of a function, or of a custom tool with free text."""

from __future__ import annotations

from typing import Any

from kimi_gateway.dialects.responses.emitter import Place
from kimi_gateway.dialects.responses.free_text import FreeText
from kimi_gateway.dialects.responses.tools import Known


class Call:
    def __init__(self, place: Place, call_id: str, known: Known) -> None:
        self.place = place
        self._call_id = call_id
        self._known = known
        self._free = FreeText() if known.custom else None
        self._pieces: list[str] = []
        place.added(self.item("in_progress"))

    def add(self, arguments: str) -> None:
        self._add(arguments if self._free is None else self._free.feed(arguments))

    def _add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            kind = "function_call_arguments" if self._free is None else "custom_tool_call_input"
            self.place.tell(f"{kind}.delta", delta=text)

    def end(self, status: str) -> None:
        if self._free is not None:
            self._add(self._free.rest())
            self.place.tell("custom_tool_call_input.done", input="".join(self._pieces))
        else:
            if not self._pieces and status == "completed":
                self._add("{}")  # clients parse it
            self.place.tell("function_call_arguments.done", arguments="".join(self._pieces))
        self.place.done(self.item(status))

    def item(self, status: str) -> dict[str, Any]:
        named: dict[str, Any] = {"call_id": self._call_id, "name": self._known.name}
        if self._known.namespace is not None:
            named["namespace"] = self._known.namespace
        text = "".join(self._pieces)
        if self._free is not None:
            return {"id": self.place.id, "type": "custom_tool_call", **named, "input": text}
        return {
            "id": self.place.id,
            "type": "function_call",
            "status": status,
            **named,
            "arguments": text,
        }
