"""Collects a stream into the answer that the upstream would have given without streaming."""

from __future__ import annotations

from typing import Any

from kimi_gateway.pivot.chunks import Chunk

_APPENDED = ("content", "reasoning_content", "refusal")


class _Text(list[str]):
    """Pieces of a text, joined at the end, so that a long answer is not copied for each piece."""


class Collector:
    """Works by choice index: texts and tool arguments are appended, logprobs concatenated, of other members
    the last value counts. It does not handle usage."""

    def __init__(self) -> None:
        self._body: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Chunk) -> None:
        self._body.update(chunk.body)
        for choice in chunk.body["choices"]:
            self._add_choice(choice)

    def _add_choice(self, piece: dict[str, Any]) -> None:
        index = piece.get("index", 0)
        choice = self._choices.get(index)
        if choice is None:
            message = {"role": "assistant", "content": _Text()}
            choice = self._choices[index] = {"index": index, "message": message, "finish_reason": None}
        for name, value in piece.items():
            if name == "delta":
                _add_delta(choice["message"], value or {})
            elif name == "logprobs":
                choice["logprobs"] = _add_logprobs(choice.get("logprobs"), value)
            elif value is not None or name not in choice:
                choice[name] = value

    def answer(self) -> dict[str, Any]:
        """The body of the JSON answer, choices in order of their index."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            choice["message"] = message = _joined(choice["message"])
            calls = message.get("tool_calls")
            if calls is not None:
                message["tool_calls"] = [_finished(calls[key], key) for key in sorted(calls)]
        return {**self._body, "choices": choices}


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for piece in value or ():
                call = message.setdefault("tool_calls", {}).setdefault(piece["index"], {})
                _add_call(call, piece)
        elif name in _APPENDED:
            if isinstance(value, str):
                _append(message, name, value)
            else:
                message.setdefault(name, value)
        elif value is not None or name not in message:
            message[name] = value


def _add_call(call: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if name == "function" and isinstance(value, dict):
            function = call["function"] = call.get("function") or {}
            for part, text in value.items():
                if part == "arguments":
                    _append(function, part, text or "")
                elif text is not None or part not in function:
                    function[part] = text
        elif value is not None or name not in call:
            call[name] = value


def _add_logprobs(before: Any, piece: Any) -> Any:
    if not isinstance(piece, dict):
        return piece if piece is not None else before
    joined = before if isinstance(before, dict) else {}
    for name, value in piece.items():
        old = joined.get(name)
        if isinstance(old, list) and isinstance(value, list):
            old.extend(value)
        elif value or old is None:
            joined[name] = list(value) if isinstance(value, list) else value
    return joined


def _append(member: dict[str, Any], name: str, piece: str) -> None:
    text = member.get(name)
    if not isinstance(text, _Text):
        text = member[name] = _Text()
    text.append(piece)


def _joined(member: dict[str, Any]) -> dict[str, Any]:
    return {name: "".join(value) if isinstance(value, _Text) else value for name, value in member.items()}


def _finished(call: dict[str, Any], place: int) -> dict[str, Any]:
    """A tool call as in an answer, where its place in the list is its index. SDKs require an id and a name,
    also if the upstream gave none."""
    whole = {name: value for name, value in call.items() if name != "index"}
    if not whole.get("id"):
        whole = {**whole, "id": f"call_{place}"}
    if isinstance(whole.get("function"), dict):
        whole["function"] = {"name": "", **_joined(whole["function"])}
    return whole
