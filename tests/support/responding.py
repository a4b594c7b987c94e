"""Requests and chunks for the tests of the Responses dialect, without a gateway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kimi_gateway.dialects.responses.dialect import ParsedResponsesRequest, Responses
from kimi_gateway.pivot.chunks import Chunk, Identity, Progress

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
NAME = "0123456789abcdef0123456789abcdef"
NOW = 1_795_212_030.0


class Kept:
    """What was kept, by account and name."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], bytes] = {}
        self.asked: list[list[str]] = []

    def keep(self, account: str, entries: dict[str, bytes]) -> None:
        self.entries |= {(account, name): value for name, value in entries.items()}

    def recall(self, account: str, names: Sequence[str]) -> dict[str, bytes]:
        if names:
            self.asked.append(list(names))
        return {name: self.entries[account, name] for name in names if (account, name) in self.entries}


def identity(name: str = NAME) -> Identity:
    return Identity(f"chatcmpl-{name}", "kimi-k3", int(NOW), "fp_x")


def read(body: Any, kept: Kept | None = None, account: str = "acc_1") -> ParsedResponsesRequest:
    """The request in a body; a dict joins a good one."""
    if isinstance(body, dict):
        body = {"model": "kimi-k3", "input": "Hello", **body}
    ask = Responses(lambda: NOW).read(json.dumps(body).encode())
    parsed = ask.complete((kept or Kept()).recall(account, ask.needs), ())
    assert isinstance(parsed, ParsedResponsesRequest)
    return parsed


def sent(**body: Any) -> dict[str, Any]:
    """What goes upstream."""
    return read(body).chat.body


def messages(*items: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(input=list(items))["messages"]
    return found


def chunk(finish: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"choices": [choice | ({"logprobs": logprobs} if logprobs else {})]}


def called(index: int, arguments: str = "", **named: Any) -> dict[str, Any]:
    """A fragment of a call; `id` and `name` where they come with it."""
    function = {"arguments": arguments} | ({"name": named["name"]} if "name" in named else {})
    return {"index": index, "function": function} | ({"id": named["id"]} if "id" in named else {})


def chunks(*bodies: dict[str, Any]) -> list[Chunk]:
    """As the gateway reads them from the upstream."""
    progress = Progress(bytes)
    read = [progress.read((json.dumps(body).encode(), b"")) for body in bodies]
    return [one for one in read if one is not None]


def streamed(parsed: ParsedResponsesRequest, *bodies: dict[str, Any], name: str = NAME) -> bytes:
    writer = parsed.writer(identity(name))
    return writer.add(chunks(*bodies)) + writer.end(USAGE)


def whole(parsed: ParsedResponsesRequest, *bodies: dict[str, Any], name: str = NAME) -> Any:
    answer = parsed.answer(identity(name))
    answer.add(chunks(*bodies))
    return json.loads(answer.end(USAGE))
