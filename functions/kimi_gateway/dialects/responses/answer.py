"""The answer as a response object: streamed as events, or complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kimi_gateway.dialects.responses.emitter import Deltas, Event
from kimi_gateway.dialects.responses.output import Output
from kimi_gateway.dialects.responses.web_search import tool_usage
from kimi_gateway.errors import GatewayError
from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot.chunks import Chunk, Identity, Run

# `error.code` of a failed response, if it is not server_error: the codes that OpenAI's clients know (its
# SDK's types; Codex does not repeat a request after the second and third, 2026-11).
_CODES = {
    "rate_limit_exceeded": "rate_limit_exceeded",
    "context_length_exceeded": "context_length_exceeded",
    "invalid_request": "invalid_prompt",
    "content_filter": "invalid_prompt",
}
# Members that repeat the request, with their defaults.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


class Answer:
    """The response object in each state. `clock` returns unix seconds."""

    def __init__(
        self,
        asked: dict[str, Any],
        identity: Identity,
        output: Output,
        clock: Callable[[], float],
        searches: bool = False,
    ) -> None:
        self.output = output
        self._searches = searches
        self._clock = clock
        self.final: dict[str, Any] | None = None  # the object after `ended`
        reasoning, text = asked.get("reasoning", {}), asked.get("text", {})
        self._head = {
            "id": response_id(identity),
            "object": "response",
            "created_at": identity.created,
            "model": identity.model,
            "background": False,
            "conversation": None,
            "service_tier": "default",
            **{name: asked.get(name, default) for name, default in _ECHOED.items()},
            "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
            "text": {**text, "format": text.get("format") or {"type": "text"}},
        }

    def begun(self) -> dict[str, Any]:
        return self._at("in_progress", [])

    def ended(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The final object. `usage` has the pivot's names. Call it after `output.end()`."""
        why = self.output.incomplete
        details = {"reason": why} if why else None
        self.final = self._at(
            "incomplete" if why else "completed",
            self.output.items(),
            completed_at=None if why else int(self._clock()),
            incomplete_details=details,
            usage=usage_of(usage),
        )
        return self.final

    def failed(self, error: GatewayError) -> dict[str, Any]:
        detail = {"code": _CODES.get(error.code, "server_error"), "message": error.message}
        return self._at("failed", self.output.items(), error=detail)

    def _at(self, status: str, output: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        if self._searches and status != "in_progress":
            more["tool_usage"] = tool_usage(self.output.searched)
        members = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None, **more}
        return {**self._head, "status": status, "output": output, **members}


def response_id(identity: Identity) -> str:
    return f"resp_{name_of(identity)}"


def name_of(identity: Identity) -> str:
    """The common part of an answer's id and its items' ids."""
    return identity.id.partition("-")[2].replace("-", "")


def usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage in the form of Responses. The platform has cached tokens at the top, or among the details like
    OpenAI."""
    prompt, completion = _details(usage, "prompt"), _details(usage, "completion")
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": _count(usage.get("cached_tokens") or prompt.get("cached_tokens")),
            "cache_write_tokens": _count(prompt.get("cache_write_tokens")),
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": _count(completion.get("reasoning_tokens"))},
        "total_tokens": usage["total_tokens"],
    }


def _details(usage: dict[str, Any], of: str) -> dict[str, Any]:
    details = usage.get(f"{of}_tokens_details")
    return details if isinstance(details, dict) else {}


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


class StreamWriter:
    """Events that end items and the answer are held until `end`, when the ledger knows of it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._sequence = 0

    def add(self, chunks: list[Chunk]) -> bytes:
        events = self._begin()
        output = self._answer.output
        for chunk in chunks:
            events += output.add_run(chunk) if isinstance(chunk, Run) else output.add(chunk)
        return self._send(events)

    def silence(self) -> bytes:
        """An event, because Codex measures the time since the last event and ignores comments."""
        return self._send(self._begin() or [self._progress()])

    def follow(self, signs: int) -> None:
        self._sequence = signs + 1  # the first sign has two events

    def end(self, usage: dict[str, Any]) -> bytes:
        events = self._begin() + self._answer.output.end()
        ended = self._answer.ended(usage)
        return self._send([*events, {"type": f"response.{ended['status']}", "response": ended}])

    def error(self, error: GatewayError) -> bytes:
        """Codex acts on `response.failed`; the SDKs raise on `error` and its member of that name."""
        failed = self._answer.failed(error)
        detail = {"code": error.code, "message": error.message, "param": error.param}
        told: Event = {"type": "error", **detail, "error": {"type": error.type, **detail}}
        return self._send([*self._begin(), {"type": "response.failed", "response": failed}, told])

    def _begin(self) -> list[Event]:
        if self._sequence:
            return []
        return [{"type": "response.created", "response": self._answer.begun()}, self._progress()]

    def _progress(self) -> Event:
        return {"type": "response.in_progress", "response": self._answer.begun()}

    def _send(self, events: list[Event]) -> bytes:
        frames = []
        for event in events:
            if isinstance(deltas := event.get("delta"), Deltas):
                frames += self._each(event, deltas)
                continue
            frames.append(_frame({"type": event["type"], "sequence_number": self._sequence, **event}))
            self._sequence += 1
        return b"".join(frames)

    def _each(self, event: Event, deltas: Deltas) -> list[bytes]:
        """The frames of an event that stands for several."""
        one = _frame({"type": event["type"], "sequence_number": 0, **event, "delta": ""})
        before, number, rest = one.partition(b'"sequence_number":')
        between, delta, after = rest[1:].partition(b'"delta":')
        begin, middle, last = before + number, between + delta, after[2:]
        first = self._sequence
        self._sequence += len(deltas)
        texts = jsonio.strings(deltas, b"\n").split(b"\n")
        return [b"%b%d%b%b%b" % (begin, at, middle, text, last) for at, text in enumerate(texts, first)]


def _frame(event: Event) -> bytes:
    return sse.encode(jsonio.dumps(event), event["type"].encode())


class JsonAnswer:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def add(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._answer.output.add(chunk)

    def end(self, usage: dict[str, Any]) -> bytes:
        self._answer.output.end()
        return jsonio.dumps(self._answer.ended(usage))
