"""What an answer holds however the upstream shaped it: usage, tool calls, choices, stop strings, names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.pivot.call_ids import vendors
from support.exchange import CHARGED, NOT_CHARGED, Seen, ask
from support.fault_table import EVENTS, TEXT, WHOLE
from support.live import LiveGateway
from upstream import (
    ErrorEvent,
    Kimi,
    ScriptedUpstream,
    Sse,
    Stall,
    Status,
    chat_events,
    error,
    frame,
    rate_limited,
)

MODES = pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "cached_tokens": 5}
TOLD = {**USAGE, "prompt_tokens_details": {"cached_tokens": 5}}  # in OpenAI's place too


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path_factory.mktemp("data"), upstream.url) as gateway:
        yield gateway


@pytest.fixture
def up(upstream: ScriptedUpstream) -> ScriptedUpstream:
    upstream.forget()
    return upstream


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "cmpl-1", "object": "chat.completion.chunk", "choices": list(choices), **more}


def delta(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


HELLO, LAST = chunk(delta(content="Hello")), delta(finish="stop")
PLACES: dict[str, list[dict[str, Any]]] = {
    "on the finish chunk": [HELLO, chunk(LAST, usage=USAGE)],
    "in the choice": [HELLO, chunk({**LAST, "usage": USAGE})],
    "in a chunk of its own": [HELLO, chunk(LAST), chunk(usage=USAGE)],
    "in all three, null elsewhere": [
        HELLO | {"usage": None},
        chunk({**LAST, "usage": USAGE}, usage=USAGE),
        chunk(usage=USAGE),
        chunk(usage=None),
    ],
    "growing from chunk to chunk": [
        HELLO | {"usage": {"prompt_tokens": 11, "completion_tokens": 1, "total_tokens": 12}},
        chunk(LAST, usage=USAGE),
    ],
}


@pytest.mark.parametrize("wanted", [True, False, None])
@pytest.mark.parametrize("events", PLACES.values(), ids=PLACES)
def test_usage_is_found_in_any_place_and_never_doubled(
    gateway: LiveGateway, up: ScriptedUpstream, events: list[dict[str, Any]], wanted: bool | None
) -> None:
    up.plan(Sse(events))
    more = {} if wanted is None else {"stream_options": {"include_usage": wanted}}
    asked = ask(gateway, True, **more)
    assert [body for body in asked.seen.bodies if not body["choices"]] == asked.seen.bodies[2:]
    assert asked.seen.usage == ([TOLD] if wanted else [])
    assert [(row.input, row.output) for row in gateway.usage(asked.key)] == [(11, 7)]


@pytest.mark.parametrize("events", PLACES.values(), ids=PLACES)
def test_a_json_answer_has_the_usage_once(
    gateway: LiveGateway, up: ScriptedUpstream, events: list[dict[str, Any]]
) -> None:
    up.plan(Sse(events))
    seen = ask(gateway, False).seen
    assert seen.usage == [TOLD]
    assert "usage" not in seen.choices[0]


@MODES
def test_usage_that_is_missing_is_estimated(gateway: LiveGateway, up: ScriptedUpstream, stream: bool) -> None:
    up.plan(Sse([HELLO, chunk(LAST)]))
    asked = ask(gateway, stream, stream_options={"include_usage": True})
    (usage,) = asked.seen.usage
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    (row,) = gateway.usage(asked.key)
    assert (row.input, row.output) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert row.input > 0 < row.output


@MODES
def test_counters_that_are_null_count_as_nothing(
    gateway: LiveGateway, up: ScriptedUpstream, stream: bool
) -> None:
    nulls = {"prompt_tokens": 11, "completion_tokens": None, "total_tokens": None, "cached_tokens": None}
    up.plan(Sse([HELLO, chunk(LAST, usage=nulls)]))
    asked = ask(gateway, stream, stream_options={"include_usage": True})
    (usage,) = asked.seen.usage
    assert [usage[f"{name}_tokens"] for name in ("prompt", "completion", "total")] == [11, 0, 11]
    assert [(row.input, row.output) for row in gateway.usage(asked.key)] == [(11, 0)]


def call(arguments: str, **more: Any) -> dict[str, Any]:
    name = more.pop("name", None)
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {**more, "function": function}


@MODES
def test_fragments_of_tool_calls_without_an_index_find_their_call(
    gateway: LiveGateway, up: ScriptedUpstream, stream: bool
) -> None:
    """An id opens a call, a fragment without one continues the last."""
    fragments = [
        call("", id="get:0", type="function", name="get"),
        call('{"a":'),
        call("1}", index=None),
        call("{}", id="put:1", type="function", name="put"),
    ]
    deltas = [chunk(delta(tool_calls=[fragment])) for fragment in fragments]
    up.plan(Sse([*deltas, chunk(delta(finish="tool_calls"))]))
    seen = ask(gateway, stream).seen
    assert seen.finishes == ["tool_calls"]
    if stream:
        calls = [choice["delta"]["tool_calls"][0] for choice in seen.choices[:-1]]
        assert [call["index"] for call in calls] == [0, 0, 0, 1]
    else:
        calls = seen.choices[0]["message"]["tool_calls"]
        assert [(vendors(call["id"]), call["function"]) for call in calls] == [
            ("get:0", {"name": "get", "arguments": '{"a":1}'}),
            ("put:1", {"name": "put", "arguments": "{}"}),
        ]


def contents(seen: Seen) -> dict[int, str]:
    texts: dict[int, str] = {}
    for choice in seen.choices:
        part = choice.get("delta") or choice.get("message") or {}
        texts[choice["index"]] = texts.get(choice["index"], "") + (part.get("content") or "")
    return texts


@MODES
@pytest.mark.parametrize("n", [2, 3, 4])
def test_several_choices_are_as_many_calls_under_one_id_for_one_credit(
    gateway: LiveGateway, up: ScriptedUpstream, n: int, stream: bool
) -> None:
    texts = [f"answer {index}" for index in range(n)]
    up.plan(*[Sse(chat_events(text, usage=USAGE, id=f"cmpl-{text}"), gap=0.005) for text in texts])
    asked = ask(gateway, stream, n=n, stream_options={"include_usage": True})
    assert sorted(contents(asked.seen)) == list(range(n))
    assert sorted(contents(asked.seen).values()) == texts
    assert asked.seen.finishes == ["stop"] * n
    assert len({body["id"] for body in asked.seen.bodies}) == 1
    (usage,) = asked.seen.usage
    assert usage.pop("prompt_tokens_details") == {"cached_tokens": 5 * n}
    assert usage == {name: count * n for name, count in USAGE.items()}
    assert (len(asked.requests(up)), asked.ledger) == (n, CHARGED)
    assert all("n" not in request.body for request in asked.requests(up))


@MODES
def test_one_of_several_calls_may_be_tried_again(
    gateway: LiveGateway, up: ScriptedUpstream, stream: bool
) -> None:
    up.plan(Status(500), WHOLE, WHOLE)
    asked = ask(gateway, stream, n=2)
    assert contents(asked.seen) == {0: TEXT, 1: TEXT}
    assert (len(asked.requests(up)), asked.ledger) == (3, CHARGED)


@MODES
def test_one_of_several_calls_that_fails_fails_the_whole(
    gateway: LiveGateway, up: ScriptedUpstream, stream: bool
) -> None:
    up.plan(Stall(3), Stall(3), ErrorEvent(6, error("server_error", "x"), Kimi()))
    asked = ask(gateway, stream, n=3)
    assert asked.seen.error is not None
    assert asked.seen.status == (200 if stream else 503)
    assert (asked.seen.done, asked.seen.finishes) == (not stream, [])
    assert asked.ledger == NOT_CHARGED
    for request in asked.requests(up)[:2]:
        assert request.closed_early.wait(30)


def test_a_refusal_of_one_of_several_calls_is_a_status(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    up.always(rate_limited("rate_limit_reached", 30))
    asked = ask(gateway, True, n=4)
    assert (asked.seen.status, asked.seen.headers["retry-after"]) == (429, "30")
    assert asked.ledger == NOT_CHARGED


LONG_STOP = "<<<THE END OF ALL THAT WILL BE SAID>>>"


@MODES
@pytest.mark.parametrize("size", [1, 5, 38, 200])
def test_a_stop_string_too_long_for_the_vendor_is_found_across_chunks(
    gateway: LiveGateway, up: ScriptedUpstream, size: int, stream: bool
) -> None:
    text = f"Said <<<THE END OF nothing. {LONG_STOP} never shown"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    up.plan(Stall(len(pieces), Sse([chunk(delta(content=piece)) for piece in pieces])))
    asked = ask(gateway, stream, stop=["short", LONG_STOP])
    assert (asked.seen.content, asked.seen.finishes) == ("Said <<<THE END OF nothing. ", ["stop"])
    assert asked.seen.done
    assert asked.ledger == CHARGED
    (request,) = asked.requests(up)
    assert request.body["stop"] == ["short"]
    assert request.closed_early.wait(30)  # what would come after it is not paid for


@MODES
def test_what_was_taken_for_the_start_of_a_stop_string_is_shown_in_the_end(
    gateway: LiveGateway, up: ScriptedUpstream, stream: bool
) -> None:
    up.plan(Sse([chunk(delta(content="a <<<THE END")), chunk(LAST)]))
    assert ask(gateway, stream, stop=LONG_STOP).seen.content == "a <<<THE END"


SIGNED = Sse(
    EVENTS, headers={"Msh-Request-Timestamp": "1795212000123", "Msh-Request-Signature": "reqsigv1_x"}
)


@MODES
@pytest.mark.parametrize(("model", "signed"), [("kimi-k3", True), ("kimi-k2", False), ("kimi-k3[1m]", False)])
def test_a_nonce_goes_upstream_only_with_the_model_that_the_signature_will_cover(
    gateway: LiveGateway, up: ScriptedUpstream, model: str, signed: bool, stream: bool
) -> None:
    up.plan(SIGNED if signed else WHOLE)
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    with gateway.client(gateway.key()) as client:
        answer = client.post("/v1/chat/completions", json=body, headers={"X-Msh-Request-Nonce": "n-1"})
    assert up.chats[-1].headers.get("x-msh-request-nonce") == ("n-1" if signed else None)
    names = ("msh-request-timestamp", "msh-request-signature")
    expected = ["1795212000123", "reqsigv1_x"] if signed else [None, None]
    assert [answer.headers.get(name) for name in names] == expected


@MODES
@pytest.mark.parametrize(
    ("asked_for", "upstream_id"),
    [
        ("kimi-k2", "kimi-k2.6"),
        ("kimi-k2-0905", "kimi-k2.6"),
        ("kimi-k3[1m]", "kimi-k3"),
        ("kimi", "kimi-k2.6"),
    ],
)
def test_the_model_is_called_what_the_client_called_it(
    gateway: LiveGateway, up: ScriptedUpstream, asked_for: str, upstream_id: str, stream: bool
) -> None:
    asked = ask(gateway, stream, model=asked_for)
    assert {body["model"] for body in asked.seen.bodies} == {asked_for}
    assert [request.body["model"] for request in asked.requests(up)] == [upstream_id]


def test_an_event_of_many_lines_is_one_event(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    lines = b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"one"}}]}\n\n'
    up.plan(Sse([lines, frame(EVENTS[-1])]))
    assert ask(gateway, True).seen.content == "one"
