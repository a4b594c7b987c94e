"""A planner that runs one tool of the gateway's own between the rounds of a turn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kimi_gateway.errors import GatewayError
from kimi_gateway.flow.attempts import UpstreamCall
from kimi_gateway.flow.rounds import Opening
from kimi_gateway.pivot.chunks import Chunk

TOOL = "lookup"
RESULT = "The result of the lookup."


@dataclass
class Lookup:
    """Calls of `lookup` are kept from the client and answered here, once `may_go` is set. `error` is what
    the tool raises then."""

    opening: Opening
    may_go: asyncio.Event
    error: GatewayError | None = None
    steps: list[str] = field(default_factory=list)  # what happened, in order
    _id: str = ""
    _arguments: str = ""

    def shown(self, chunks: list[Chunk]) -> list[Chunk]:
        return [chunk for chunk in chunks if not self._ours(chunk)]

    def _ours(self, chunk: Chunk) -> bool:
        for choice in chunk.body["choices"]:
            for call in choice["delta"].get("tool_calls") or ():
                self._id = self._id or call.get("id", "")
                self._arguments += call["function"].get("arguments", "")
        return bool(self._id)

    async def next(self) -> Sequence[UpstreamCall]:
        if not self._id:
            self.steps.append("no more")
            return ()
        self.steps.append(f"begin {self._arguments}")
        try:
            await self.may_go.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.steps.append("cancelled")
            raise
        call = {"id": "lookup:0", "type": "function"}
        call |= {"function": {"name": TOOL, "arguments": self._arguments}}
        added: list[dict[str, Any]] = [
            {"role": "assistant", "content": None, "reasoning_content": "Look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "lookup:0", "content": RESULT},
        ]
        self._id = self._arguments = ""
        chat = self.opening.chat
        self.opening = replace(
            self.opening, chat=replace(chat, body=chat.body | {"messages": [*chat.body["messages"], *added]})
        )
        self.steps.append("end")
        return await self.opening.ask(self.opening.chat, len(json.dumps(added)))


@dataclass
class Lookups:
    """Plans each turn with a planner of its own."""

    error: GatewayError | None = None
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    planners: list[Lookup] = field(default_factory=list)

    def __call__(self, opening: Opening) -> Lookup:
        self.planners.append(Lookup(opening, self.may_go, self.error))
        return self.planners[-1]
