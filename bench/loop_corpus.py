"""The corpus of bench/loop_block.py: bodies of about 1 MB that cost more than others, and the largest."""

# ruff: noqa: E501
from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from load import connect

from kimi_gateway.settings import Settings

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
MB = 1_000_000
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """`bar` is in milliseconds."""

    name: str
    path: str
    body: Callable[[], bytes]
    bar: float = 50.0


def posted(port: int, key: str, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
    return (head + f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body


def _raw(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _chat(content: Any = "Hello", **more: Any) -> bytes:
    return _raw({"model": "kimi-k3", "messages": [{"role": "user", "content": content}], **more})


def _filled(member: bytes) -> bytes:
    """A chat with one more member, as it is."""
    return _chat()[:-1] + b',"x":' + member + b"}"


def _asking(name: str, **more: Any) -> bytes:
    """A request whose upstream answers in a way of its own."""
    return _chat(f"case:{name}", **more)


def _in_format(path: str, messages: int) -> bytes:
    """A history of so many messages in a format."""
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": "word " * 15} for number in range(messages)
    ]
    turns.append({"role": "user", "content": "Go on."})
    if path == RESPONSES:
        return _raw({"model": "kimi-k3", "input": turns})
    return _raw({"model": "kimi-k3", "max_tokens": 100, "messages": turns})


def _calls(path: str, calls: int) -> bytes:
    """A history of so many tool calls with results."""
    turns: list[Json] = [{"role": "user", "content": "Go."}]
    for number in range(calls):
        id, text = f"f:{number % 7}", '{"a":1}'
        if path == CHAT:
            function = {"name": "f", "arguments": text}
            call = {"id": id, "type": "function", "function": function}
            turns += [{"role": "assistant", "content": None, "tool_calls": [call]}]
            turns += [{"role": "tool", "tool_call_id": id, "content": "ok"}]
        elif path == MESSAGES:
            use = {"type": "tool_use", "id": f"f_{number}", "name": "f", "input": {"a": 1}}
            result = {"type": "tool_result", "tool_use_id": f"f_{number}", "content": "ok"}
            turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        else:
            turns += [{"type": "function_call", "call_id": id, "name": "f", "arguments": text}]
            turns += [{"type": "function_call_output", "call_id": id, "output": "ok"}]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    if path == RESPONSES:
        return _raw(
            {
                "model": "kimi-k3",
                "input": turns,
                "tools": [{"type": "function", "name": "f", "parameters": schema}],
            }
        )
    if path == MESSAGES:
        tools: list[Json] = [{"name": "f", "input_schema": schema}]
        return _raw({"model": "kimi-k3", "max_tokens": 100, "messages": turns, "tools": tools})
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    return _raw({"model": "kimi-k3", "messages": turns, "tools": tools})


def _tools(*schemas: Json, names: list[str] | None = None) -> bytes:
    named = names or [f"t{number}" for number in range(len(schemas))]
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in zip(named, schemas, strict=True)
    ]
    return _chat(tools=tools)


def _object(**properties: Any) -> Json:
    return {"type": "object", "properties": properties}


def _colliding() -> list[str]:
    digest = hashlib.sha256(b"a b").hexdigest()
    return ["a b", *[f"a_b_{digest[:length]}" for length in range(1, 65)]]


def _chain(length: int) -> Json:
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"type": "null"}]} for n in range(length)}
    defs[f"d{length}"] = {"type": "string"}
    return {**_object(a={"$ref": "#/$defs/d0"}), "$defs": defs}


def _picture(size: int) -> bytes:
    data = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(size * 3 // 4)).decode()
    return _chat([{"type": "image_url", "image_url": {"url": data}}])


def _words(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


SCHEMAS: dict[str, Callable[[], Json]] = {
    "allOf of enums": lambda: _object(a={"allOf": [{"enum": _words("v", 30_000)}] * 2 + [{"enum": _words("v", 9_000)}] * 3}),
    "allOf of required": lambda: {"type": "object", "allOf": [{"required": _words(f"r{n}-", 1_000)} for n in range(80)]},
    "allOf of properties": lambda: {"type": "object", "allOf": [_object(**{name: {} for name in _words("p", 1_000)})] * 70},
    "anyOf of consts": lambda: _object(a={"anyOf": [{"const": each} for each in _words("c", 45_000)]}),
    "consts that are objects": lambda: _object(a={"anyOf": [{"const": {"k": n}} for n in range(45_000)]}),
    "many ifs": lambda: {"type": "object", "allOf": [{"if": {"required": [f"a{n}"]}, "then": {"required": [f"b{n}"]}} for n in range(13_000)]},
    "flat properties": lambda: _object(**{name: {"type": "string"} for name in _words("p", 30_000)}),
    "a chain of references": lambda: _chain(16_000),
    "the same reference often": lambda: {**_object(**{name: {"$ref": "#/$defs/d"} for name in _words("p", 25_000)}), "$defs": {"d": _object(a={"type": "string"})}},
}  # fmt: skip
DENSE: dict[str, Callable[[], bytes]] = {
    "lists of nothing": lambda: b"[" + b"[]," * 330_000 + b"0]",
    "objects of one": lambda: b"[" + b'{"a":1},' * 120_000 + b"0]",
    "numbers": lambda: b"[" + b"1," * 490_000 + b"1]",
    "floats": lambda: b"[" + b"1.5e9," * 160_000 + b"1]",
    "one number": lambda: b"1" * MB,
    "names": lambda: b"{" + b",".join(b'"n%d":0' % number for number in range(90_000)) + b"}",
    "deep lists": lambda: b"[" * 400_000 + b"]" * 400_000,
    "strings": lambda: b"[" + b'"",' * 330_000 + b"0]",
}
TEXTS: dict[str, Callable[[], bytes]] = {
    "a text": lambda: _chat("word " * 200_000),
    "a text of code": lambda: _chat("f([1, 2], {'a': [b, c]}),\n" * 38_000),
    "a text of escapes": lambda: _chat('\n"\\' * 165_000),
    "a text in Chinese": lambda: _chat("一二三" * 110_000),
    "escaped characters": lambda: json.dumps({"model": "kimi-k3", "messages": [{"role": "user", "content": "一" * 165_000}]}).encode(),
    "many parts": lambda: _chat([{"type": "text", "text": "word"}] * 30_000),
    "stops": lambda: _chat("case:many chunks", stop=["ab" * 2048, "a" * 4096, "b" * 4096, "ba" * 2048], stream=True),
    "a stop too long": lambda: _chat(stop=["a" * 900_000]),
    "a secret's beginning": lambda: _raw({"model": "eyJ" * 330_000, "messages": [{"role": "user", "content": "Hi"}]}),
    "colliding names": lambda: _tools(*[_object()] * 65, names=_colliding()),
}  # fmt: skip
ANSWERED = (
    ("one event of 8 MiB", 250.0), ("a dense event", 250.0), ("tiny events", 50.0), ("comments", 50.0), ("a bomb", 50.0),
    ("many chunks", 50.0), ("many choices", 250.0), ("many calls", 250.0), ("a deep event", 250.0),
)  # fmt: skip


def _largest(make: Callable[[int], bytes]) -> Callable[[], bytes]:
    return lambda: make(Settings().body_limit - 1000)


FORMATS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}
CASES: list[Case] = [
    *[Case(f"text: {name}", CHAT, make) for name, make in TEXTS.items()],
    *[Case(f"dense: {name}", CHAT, lambda make=make: _filled(make())) for name, make in DENSE.items()],
    *[Case(f"schema: {name}", CHAT, lambda make=make: _tools(make())) for name, make in SCHEMAS.items()],
    Case("schema: 128 tools", CHAT, lambda: _tools(*[_object(**{name: {"allOf": [{"enum": _words("v", 20)}] * 2} for name in _words("p", 12)})] * 128)),
    *[Case(f"history: 9,000 messages, {name}", path, lambda path=path: _in_format(path, 9_000)) for name, path in FORMATS.items()],
    *[Case(f"history: 4,500 calls, {name}", path, lambda path=path: _calls(path, 4_500)) for name, path in FORMATS.items()],
    Case("picture: 1 MB", CHAT, lambda: _picture(MB)),
    Case("largest: a picture", CHAT, _largest(_picture), 500.0),
    Case("largest: a text", CHAT, _largest(lambda size: _chat("word " * (size // 5))), 500.0),
    Case("largest: escapes", CHAT, _largest(lambda size: _chat("\n" * (size // 2))), 500.0),
    Case("largest: messages", CHAT, _largest(lambda size: _in_format(CHAT, size // 110)), 500.0),
    Case("largest: a list of nothing", CHAT, _largest(lambda size: _filled(b"[" + b"[]," * (size // 3) + b"0]")), 500.0),
    *[Case(f"upstream: {name}, stream", CHAT, lambda name=name: _asking(name, stream=True), bar) for name, bar in ANSWERED],
    *[Case(f"upstream: {name}, JSON", MESSAGES, lambda name=name: _asking(name, max_tokens=100), bar) for name, bar in ANSWERED],
]  # fmt: skip


async def kept_answers(port: int, key: str, count: int = 100) -> Case:
    """A request that names so many kept answers of 30 KB."""
    ids = []
    for _ in range(count):
        connection = await connect(port)
        answer = await connection.ask(
            posted(port, key, RESPONSES, _raw({"model": "kimi-k3", "input": "case:long"}))
        )
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"an answer could not be kept: {answer.status} {answer.body[:300]!r}")
        ids.append(json.loads(answer.body)["output"][0]["id"])
    items: list[Json] = [{"type": "item_reference", "id": id} for id in ids]
    return Case(
        "kept answers",
        RESPONSES,
        lambda: _raw({"model": "kimi-k3", "input": [*items, {"role": "user", "content": "Go on."}]}),
    )
