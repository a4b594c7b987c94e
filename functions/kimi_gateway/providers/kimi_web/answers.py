"""Reads the service's answer: frames become pivot chunks, and its errors failures (docs/kimi-web.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot import token_estimate
from kimi_gateway.providers import failures
from kimi_gateway.providers.failures import Cause, UpstreamFailure
from kimi_gateway.providers.kimi_web import frames, sources

Json = dict[str, Any]
LONGEST_QUERY = 500  # characters
MOST_NODES = 1_000  # messages and blocks of one answer

# Connect's codes, and the older service's error types.
_BY_CODE: Mapping[str, Cause] = {
    "invalid_argument": "invalid",
    "failed_precondition": "invalid",
    "out_of_range": "context",
    "not_found": "model",
    "unauthenticated": "authentication",
    "permission_denied": "permission",
    "resource_exhausted": "rate",
    "unavailable": "overload",
    "auth.token.invalid": "authentication",
    "auth.account_abnormal": "permission",
    "chat.user_stream_pushing": "rate",
    "chat.forbidden": "permission",
}
_BY_REASON: Mapping[str, Cause] = {
    "REASON_COMPLETION_OVERLOADED": "overload",
    "REASON_SERVER_OVERLOADED_FOR_FREE_USER": "overload",
}


class Reader:
    """The state of one answer. `chat` is the id of its chat, empty until it is known. `over`: the service
    said that the answer is complete; an error may still follow. `closed`: nothing follows. `failure` comes
    after the events that were returned."""

    def __init__(self) -> None:
        self.chat = ""
        self.spoke = False
        self.over = False
        self.closed = False
        self.failure: UpstreamFailure | None = None
        self._written = 0.0  # estimated tokens
        self._others = set[str]()  # messages that are not the model's
        self._blocks: dict[str, list[str]] = {}  # the text so far, by block
        self._lengths: dict[str, int] = {}
        self._query = ""

    def pivot(self, some: list[frames.Frame]) -> list[sse.Event]:
        """The events of some frames, up to a failure."""
        events: list[sse.Event] = []
        try:
            for flags, content in some:
                told = _object(content)
                if (error := told.get("error")) and isinstance(error, dict):
                    raise of_error(error)
                if flags & frames.LAST:
                    self.closed = self.over = True
                    break
                events += [_event(delta) for delta in self._deltas(told)]
        except UpstreamFailure as failure:
            self.failure = failure
        return events

    def end(self, prompt: int) -> list[sse.Event]:
        """The end of a complete answer. The service counts no tokens, so its usage is an estimate; without
        one a budget would pay for a full window each time."""
        if not self.over:
            return []
        written = math.ceil(self._written)
        usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
        return [_event({}, "stop", usage), (b"[DONE]", b"")]

    def _deltas(self, told: Json) -> list[Json]:
        chat, message, block = (_member(told, name) for name in ("chat", "message", "block"))
        if isinstance(id := chat.get("id"), str) and not self.chat:
            self.chat = id[:200]
        deltas: list[Json] = []
        if message:
            deltas += self._message(message)
        if block and str(block.get("messageId") or "") not in self._others:
            deltas += self._block(block, told.get("op"))
        if "done" in told:
            self.over = True
        return deltas

    def _message(self, message: Json) -> list[Json]:
        id, role = str(message.get("id") or ""), message.get("role")
        if role is not None and role != "assistant":
            if id and len(self._others) < MOST_NODES:
                self._others.add(id)
            return []
        if message.get("status") == "MESSAGE_STATUS_COMPLETED" and role == "assistant":
            self.over = True
        found = sources.of_references(_member(message, "refs").get("searchChunks"))
        return [{sources.MEMBER: {"query": self._query, "sources": found}}] if found else []

    def _block(self, block: Json, op: object) -> list[Json]:
        if exception := _member(block, "exception"):
            raise of_error(_member(exception, "error") or exception)
        if tool := _member(block, "tool"):
            self._query = _query(tool.get("args")) or self._query
            return []
        deltas = []
        for name, where in (("think", "reasoning_content"), ("text", "content")):
            part = _member(block, name)
            text = part.get("content")
            if not isinstance(text, str) or not text:
                continue
            if part.get("flags") == "thinking":
                where = "reasoning_content"
            text = self._new(f"{name}:{block.get('id') or ''}", text, op)
            if text:
                self.spoke = True
                self._written += token_estimate.of_text(text)
                deltas.append({where: text})
        return deltas

    def _new(self, block: str, text: str, op: object) -> str:
        """The new part of a text: all of an `append`, and of a `set` the rest behind the text so far."""
        parts = self._blocks.get(block)
        if parts is None:
            if len(self._blocks) >= MOST_NODES:
                raise UpstreamFailure("broken", f"an answer of more than {MOST_NODES} blocks")
            parts, self._lengths[block] = self._blocks.setdefault(block, []), 0
        length = self._lengths[block]
        if op == "set" and length:
            if len(text) <= length:
                return ""
            before = "".join(parts)
            if not text.startswith(before):
                return ""  # what was sent cannot be taken back
            text = text[length:]
            parts[:] = [before]
        parts.append(text)
        self._lengths[block] = length + len(text)
        return text


def _query(args: object) -> str:
    """The words of a search in a tool's arguments, a JSON text or an object."""
    if isinstance(args, str):
        try:
            args = jsonio.loads(args.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return ""
    if not isinstance(args, dict):
        return ""
    words = args.get("query") or args.get("queries")
    if isinstance(words, list):
        words = ", ".join(word for word in words[:10] if isinstance(word, str))
    return words[:LONGEST_QUERY] if isinstance(words, str) else ""


def _member(value: Json, name: str) -> Json:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _object(content: bytes) -> Json:
    """Raises UpstreamFailure."""
    if not content:
        return {}
    if jsonio.has_too_many_values(content):
        raise UpstreamFailure("broken", f"a frame of more than {jsonio.MOST_VALUES} values")
    try:
        told = jsonio.loads(content)
    except (ValueError, RecursionError) as exc:
        raise UpstreamFailure("broken", "a frame that is not JSON") from exc
    if not isinstance(told, dict):
        raise UpstreamFailure("broken", "a frame that is not an object")
    return told


def _event(delta: Json, reason: str | None = None, usage: Json | None = None) -> sse.Event:
    body: Json = {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    return jsonio.dumps(body if usage is None else {**body, "usage": usage}), b""


def of_error(error: Json, status: int | None = None, retry_after: float | None = None) -> UpstreamFailure:
    """The failure for the service's error, of either form. Its own words for people are preferred."""
    code = error.get("code") or error.get("error_type") or ""
    details = error.get("details")
    listed = [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    debug = next((found for each in listed if (found := _member(each, "debug"))), error)
    reason, words = str(debug.get("reason") or ""), _member(debug, "localizedMessage").get("message")
    message = words if isinstance(words, str) and words else error.get("message")
    known = _BY_REASON.get(reason) or _BY_CODE.get(str(code))
    if debug.get("paywall"):
        known = "quota"
    cause = known or (failures.usual_cause(status, {}) if status not in (None, 200) else "server")
    where = f"{code} {reason}".strip() or (f"status {status}" if status else "error frame")
    return failures.failure(cause, {"message": message}, retry_after, where)


def refused(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamFailure:
    """The failure for an answer that is not a stream."""
    try:
        told = jsonio.loads(body)
    except (ValueError, RecursionError):
        told = None
    whole = told if isinstance(told, dict) else {}
    inner = whole.get("error")
    known: Json = inner if isinstance(inner, dict) else whole
    return of_error(known, status, failures.seconds(headers.get("retry-after")))
