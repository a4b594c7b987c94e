"""A model at work: it calls tools until their results are there, then says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upstream.steps import Kimi, Reply

if TYPE_CHECKING:
    from upstream.server import Request


@dataclass(frozen=True)
class ToolLoop:
    """One call of the script for each result that the request holds, then `text`.

    It remembers nothing, so requests beside the loop (a title, a summary) do not disturb it: one that lacks
    the next call's tool gets `beside`.
    """

    calls: Sequence[tuple[str, Any]]
    text: str = "Done."
    beside: str = "A title"

    def reply(self, request: Request) -> Reply:
        done = sum(message["role"] == "tool" for message in request.body["messages"])
        if done >= len(self.calls):
            return Kimi(text=self.text).reply(request)
        if self.calls[done][0] not in _tools(request.body):
            return Kimi(text=self.beside).reply(request)
        return Kimi(text="", tools=self.calls[done : done + 1], first_call=done).reply(request)


@dataclass(frozen=True)
class CallPerPrompt:
    """One call of `tool` for each prompt of the user, with the prompt's number as its argument `n`, then
    `text`. It remembers nothing. The vendor's ids count on within a conversation.
    """

    tool: str
    text: str = "Done: it is written."

    def reply(self, request: Request) -> Reply:
        roles = [message["role"] for message in request.body["messages"]]
        prompts, results = roles.count("user"), roles.count("tool")
        if results >= prompts:
            return Kimi(text=self.text).reply(request)
        return Kimi(text="", tools=[(self.tool, {"n": prompts})], first_call=results).reply(request)


def _tools(body: dict[str, Any]) -> set[str]:
    return {tool["function"]["name"] for tool in body.get("tools") or ()}
