"""The shapes in which upstreams cut and number tool calls in a stream, and the calls that each means."""

from __future__ import annotations

from typing import Any

from upstream import Sse

Json = dict[str, Any]
Called = list[tuple[str, str, Any]]  # the vendor's id, name and arguments
FUNCTION: Json = {"name": "run", "parameters": {"type": "object", "properties": {}}}


def at(index: Any, arguments: Any = None, id: str | None = None, name: str | None = None) -> Json:
    """A fragment; what is None is not there."""
    function: Json = {} if arguments is None else {"arguments": arguments}
    if name is not None:
        function = {"name": name, **function}
    made: Json = {"function": function} if index is None else {"index": index, "function": function}
    return made | ({} if id is None else {"id": id, "type": "function"})


ONE = [("run:0", "run", {"command": "ls"})]
TWO = [*ONE, ("run:1", "run", {"b": 2})]
LS = '{"command": "ls"}'
SHAPES: dict[str, tuple[list[Json], Called]] = {
    "whole": ([at(0, LS, "run:0", "run")], ONE),
    "the vendor's": ([at(0, "", "run:0", "run"), at(0, '{"command'), at(0, '": "ls"}')], ONE),
    "an id of its own for each fragment": (
        [at(0, "", "run:0", "run"), at(0, '{"', "f:0"), at(0, "command", "f:1"), at(0, '": "ls"}', "f:2")],
        ONE,
    ),
    "id and name in each fragment": (
        [at(0, '{"command"', "run:0", "run"), at(0, ': "ls"}', "run:0", "run")], ONE,
    ),
    "the name again": ([at(0, '{"command"', "run:0", "run"), at(0, ': "ls"}', name="run")], ONE),
    "the name later than the id": ([at(0, id="run:0"), at(0, LS, name="run")], ONE),
    "arguments that are an object": ([at(0, {"command": "ls"}, "run:0", "run")], ONE),
    "arguments that are null": (
        [{**at(0, None, "run:0", "run"), "function": {"name": "run", "arguments": None}}, at(0, LS)], ONE,
    ),
    "no index": ([at(None, "", "run:0", "run"), at(None, LS)], ONE),
    "a negative index": ([at(-1, "", "run:0", "run"), at(-1, LS)], ONE),
    "a huge index": ([at(10**12, "", "run:0", "run"), at(10**12, LS)], ONE),
    "an index that is text": ([at("0", "", "run:0", "run"), at("0", LS)], ONE),
    "two calls": ([at(0, LS, "run:0", "run"), at(1, '{"b"', "run:1", "run"), at(1, ": 2}")], TWO),
    "two that interleave": (
        [at(0, "", "run:0", "run"), at(1, "", "run:1", "run"), at(1, '{"b"'), at(0, LS), at(1, ": 2}")], TWO,
    ),
    "two at one index": ([at(0, LS, "run:0", "run"), at(0, "", "run:1", "run"), at(0, '{"b": 2}')], TWO),
    "two without an index": ([at(None, LS, "run:0", "run"), at(None, '{"b": 2}', "run:1", "run")], TWO),
    "two that begin at the second": ([at(1, LS, "run:0", "run"), at(0, '{"b": 2}', "run:1", "run")], TWO),
    "two of one id": (
        [at(0, LS, "run:0", "run"), at(1, '{"b": 2}', "run:0", "run")],
        [*ONE, ("run:0", "run", {"b": 2})],
    ),
    "two of one id at one index": (
        [at(0, LS, "run:0", "run"), at(0, '{"b": 2}', "run:0", "run")],
        [*ONE, ("run:0", "run", {"b": 2})],
    ),
    "no id": ([at(0, "", name="run"), at(0, LS)], [("call_0", "run", {"command": "ls"})]),
    "no name": ([at(0, "", "run:0"), at(0, LS)], [("run:0", "", {"command": "ls"})]),
    "neither id nor name": ([at(0, ""), at(0, LS)], [("call_0", "", {"command": "ls"})]),
    "neither, beside a whole one": (
        [at(0, LS, "run:0", "run"), at(1, '{"b": 2}')], [*ONE, ("call_1", "", {"b": 2})],
    ),
    "a raw line end": (
        [at(0, '{"command": "a', "run:0", "run"), at(0, '\nb\\'), at(0, 'd"} {'), at(0, "}")],
        [("run:0", "run", {"command": "a\nb\\d"})],
    ),
}  # fmt: skip


def answer_of(shape: str) -> Sse:
    """The upstream's answer in this shape."""
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [each]}}]} for each in SHAPES[shape][0]]
    return Sse([*deltas, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}])
