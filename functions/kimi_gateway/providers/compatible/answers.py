"""Reads a vendor's answers: its reasoning as the pivot has it, and its errors by the rules of its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from kimi_gateway.catalog.vendor import Vendor
from kimi_gateway.dataclass import dataclass
from kimi_gateway.net import jsonio, sse
from kimi_gateway.providers import failures
from kimi_gateway.providers.failures import UpstreamFailure

Json = dict[str, Any]
OPEN, CLOSE = "<think>", "</think>"
# Members of an event that is an error, although the status was 200. In a JSON text quotes are escaped, so
# these bytes are never part of a model's words.
_MARKS = (b'"error"', b'"code"', b'"base_resp"')
_GOOD = frozenset(("", "0", "200", "None"))  # codes of a success


@dataclass(slots=True)
class Tags:
    """Splits the content of one choice: reasoning stands between tags at its start, and nowhere else. Tags
    may be cut between chunks at any place."""

    _state: str = "start"
    _held: str = ""

    def add(self, text: str) -> tuple[str, str]:
        """The reasoning and the content of the next piece."""
        text, self._held = self._held + text, ""
        if self._state == "start":
            begun = text.lstrip()
            if OPEN.startswith(begun[: len(OPEN)]) and len(begun) < len(OPEN):
                self._held = text
                return "", ""
            self._state = "thinking" if begun.startswith(OPEN) else "content"
            text = begun[len(OPEN) :] if self._state == "thinking" else text
        if self._state == "thinking":
            reasoning, found, text = text.partition(CLOSE)
            if not found:
                kept = _overlap(reasoning, CLOSE)
                self._held = reasoning[len(reasoning) - kept :]
                return reasoning[: len(reasoning) - kept], ""
            self._state = "gap"
            rest = self._content(text)
            return reasoning, rest
        return "", self._content(text)

    def end(self) -> tuple[str, str]:
        """The rest that was held back; call it when the answer is complete."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "thinking" else ("", held)

    def _content(self, text: str) -> str:
        """The content without the blank lines between it and the reasoning."""
        if self._state == "gap":
            text = text.lstrip("\r\n")
            self._state = "content" if text else "gap"
        return text


def _overlap(text: str, mark: str) -> int:
    """The length of the longest end of `text` that begins `mark`."""
    return next((size for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), 0)


@dataclass(slots=True)
class Details:
    """The texts of `reasoning_details` of one choice. The vendor's example takes each text as everything so
    far; a report of 2026 saw only the new part. Both are read."""

    _all: str = ""

    def add(self, details: Any) -> str:
        found = [detail.get("text") for detail in details if isinstance(detail, dict)] if details else []
        text = "".join(each for each in found if isinstance(each, str))
        if self._all and text.startswith(self._all):
            new, self._all = text[len(self._all) :], text
            return new
        self._all += text
        return text


@dataclass(slots=True)
class Reader:
    """One streamed answer. Raises UpstreamFailure for an event that is an error."""

    vendor: Vendor
    _tags: dict[int, Tags] = field(default_factory=dict)
    _details: dict[int, Details] = field(default_factory=dict)

    def pivot(self, events: list[sse.Event]) -> list[sse.Event]:
        for event in events:
            if event[1] == b"error" or any([mark in event[0] for mark in _MARKS]):
                _refuse(self.vendor, event)
        change = _CHANGES.get(self.vendor.reasoning)
        if change is None:
            return events
        changed = [self._changed(event, change) for event in events]
        if self._tags and events and events[-1][0] == b"[DONE]":
            changed[-1:-1] = self._rests()
        return changed

    def _rests(self) -> list[sse.Event]:
        """The rests of choices that ended without a finish reason."""
        rests = []
        for index, tags in self._tags.items():
            reasoning, content = tags.end()
            if reasoning or content:
                delta = {"content": content, **({"reasoning_content": reasoning} if reasoning else {})}
                rests.append((jsonio.dumps({"choices": [{"index": index, "delta": delta}]}), b""))
        return rests

    def _changed(self, event: sse.Event, change: Callable[[Reader, Json], None]) -> sse.Event:
        data, name = event
        try:
            body = jsonio.loads(data)
            for choice in body["choices"]:
                change(self, choice)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return event  # [DONE], or for the one who reads chunks
        return jsonio.dumps(body), name

    def _split(self, choice: Json) -> None:
        delta = choice.get("delta") or {}
        tags = self._tags.setdefault(choice.get("index", 0), Tags())
        reasoning, content = tags.add(delta.get("content") or "")
        if choice.get("finish_reason") or delta.get("tool_calls"):
            more = tags.end()
            reasoning, content = reasoning + more[0], content + more[1]
        if delta.get("content") or content:
            delta["content"] = content
        if reasoning:
            delta["reasoning_content"] = reasoning
        if delta:
            choice["delta"] = delta

    def _join(self, choice: Json) -> None:
        delta = choice.get("delta") or {}
        details = self._details.setdefault(choice.get("index", 0), Details())
        reasoning = details.add(delta.pop("reasoning_details", None))
        if reasoning:
            delta["reasoning_content"] = reasoning

    def _rename(self, choice: Json) -> None:
        delta = choice.get("delta") or {}
        if (reasoning := delta.pop("reasoning", None)) and not delta.get("reasoning_content"):
            delta["reasoning_content"] = reasoning


_CHANGES: Mapping[str, Callable[[Reader, Json], None]] = {
    "think-tags": Reader._split,
    "reasoning_details": Reader._join,
    "reasoning": Reader._rename,
}


def _refuse(vendor: Vendor, event: sse.Event) -> None:
    try:
        body = jsonio.loads(event[0])
    except (ValueError, RecursionError):
        return  # for the one who reads chunks
    error = error_of(body)
    if error is not None:
        raise failure(vendor, None, error)


def error_of(body: Any) -> Json | None:
    """The error of an answer, in one of three places; None if it is none."""
    if not isinstance(body, dict):
        return None
    error, native = body.get("error"), body.get("base_resp")
    if error:
        return error if isinstance(error, dict) else {"message": str(error)}
    if isinstance(native, dict) and str(native.get("status_code")) not in _GOOD:
        return {"code": native.get("status_code"), "message": native.get("status_msg")}
    if "choices" not in body and str(body.get("code", "")) not in _GOOD or _failed(body):
        return {"code": body.get("code"), "message": body.get("message") or body.get("msg")}
    return None


def _failed(body: Json) -> bool:
    """Whether a chunk carries a code of a failure besides its choices."""
    code = body.get("code")
    return type(code) is int and code not in (0, 200)


def failure(
    vendor: Vendor, status: int | None, error: Mapping[str, Any], retry_after: float | None = None
) -> UpstreamFailure:
    codes = tuple(str(error[name]) for name in ("code", "type") if error.get(name) is not None)
    message = error.get("message")
    text = message[: failures.LONGEST_MESSAGE] if isinstance(message, str) else ""
    found = next((rule.cause for rule in vendor.errors if rule.matches(status, codes, text)), None)
    cause = found or failures.usual_cause(status or 500, error)
    where = "error event" if status is None else f"status {status}"
    return failures.failure(cause, error, retry_after, where)


def refused(vendor: Vendor, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamFailure:
    """The failure for an answer that is not a stream."""
    try:
        error = error_of(jsonio.loads(body))
    except (ValueError, RecursionError):
        error = None
    return failure(vendor, None if status == 200 else status, error or {}, _after(headers))


def _after(headers: Mapping[str, str]) -> float | None:
    return failures.seconds(headers.get("retry-after"))
