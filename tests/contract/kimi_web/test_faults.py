"""What the web service may do wrong: each error's meaning, and bounds against a hostile one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.providers.kimi_web.provider import AFTER_OVER
from support.exchange import CHARGED, NOT_CHARGED, ask, ledger, streaming
from support.formats import FORMATS
from support.kimi_web import with_web
from support.live import LiveGateway
from upstream import CLOSE, HANG, RESET, Status
from upstream.kimi_web import CHAT, TEXT, Connect, Frames, WebService, connect, framed, trailer
from upstream.server import Request
from upstream.steps import Part, Reply

Json = dict[str, Any]
MODEL = "kimi-web/k2.6"
LIMITED, UNAVAILABLE, INVALID = (
    (429, "rate_limit_exceeded"),
    (503, "service_unavailable"),
    (400, "invalid_request"),
)
FREE = "REASON_SERVER_OVERLOADED_FOR_FREE_USER"


def text(content: str, op: str = "append") -> bytes:
    return framed({"op": op, "block": {"id": "text", "text": {"content": content}}})


OVERLOADED = {
    "error": {"reason": "REASON_COMPLETION_OVERLOADED", "localizedMessage": {"message": "busy now"}}
}
DONE = framed({"done": {}})
ERRORS: dict[str, tuple[Any, tuple[int, str], str]] = {
    "invalid": (Frames([trailer("invalid_argument", words="a bad field")]), INVALID, "invalid"),
    "too many": (Frames([trailer("resource_exhausted", words="too many chats")]), LIMITED, "rate"),
    "free": (Frames([trailer("resource_exhausted", FREE, "busy")]), LIMITED, "overload"),
    "paywall": (Frames([trailer("permission_denied", words="pay", paywall={"x": 1})]), UNAVAILABLE, "quota"),
    "denied": (Frames([trailer("permission_denied", words="no")]), UNAVAILABLE, "permission"),
    "unavailable": (Frames([trailer("unavailable", words="later")]), LIMITED, "overload"),
    "internal": (Frames([trailer("internal", words="bug")]), UNAVAILABLE, "server"),
    "exception": (Frames([framed({"block": {"exception": OVERLOADED}})]), LIMITED, "overload"),
    "flagged": (Status(403, {"error_type": "auth.account_abnormal"}), UNAVAILABLE, "permission"),
    "json 429": (Status(429, {"code": "resource_exhausted", "message": "slow down"}), LIMITED, "rate"),
    "json at 200": (Status(200, {"error_type": "chat.user_stream_pushing"}), LIMITED, "rate"),
    "page": (Status(502, "<html>nginx</html>"), UNAVAILABLE, "server"),
    "page at 200": (Status(200, "<html>hello</html>"), UNAVAILABLE, "broken"),
    "not json": (Frames([framed(b"{")]), UNAVAILABLE, "broken"),
    "no end": (Frames([text("Hel")]), UNAVAILABLE, "broken"),
    "cut frame": (Frames([b"\0\0\0\1\0half"]), UNAVAILABLE, "broken"),
    "error after done": (Frames([text("Hel"), DONE, trailer("internal")]), UNAVAILABLE, "server"),
    "compressed": (Frames([framed(b"x", 1)]), UNAVAILABLE, "broken"),
    "huge frame": (Frames([b"\0\xff\xff\xff\xff"]), UNAVAILABLE, "broken"),
    "nested": (Frames([framed(b'{"a":' * 9_000 + b"1" + b"}" * 9_000)]), UNAVAILABLE, "broken"),
    "values": (Frames([framed(b'{"a":[' + b"1," * 300_000 + b"1]}")]), UNAVAILABLE, "broken"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_its_meaning_and_costs_nothing(
    gateway: LiveGateway, fresh: WebService, name: str
) -> None:
    step, (status, code), cause = ERRORS[name]
    at = list(ERRORS).index(name)
    form, stream = list(FORMATS)[at % 3], at % 2 == 0
    format = FORMATS[form]
    fresh.plan(step, step, step)
    seen = ask(gateway, stream, format=format, model=MODEL)
    error = seen.seen.error
    assert error is not None, seen.seen.text
    assert seen.ledger == NOT_CHARGED
    assert seen.seen.status in ((200, status) if stream and name in SPOKE else (status,)), seen.seen.text
    if format.codes:
        assert error["code"] == code
    if status == 503:
        assert "kimi-web" in error["message"]
    assert gateway.lines("attempt_failed")[-1]["cause"] == cause
    fresh.forget_plan()
    ask(gateway, False, model=MODEL)  # a good answer, after which the token is as good as before


SPOKE = {"no end", "error after done"}


def test_a_stream_that_broke_after_words_has_no_second_content(
    gateway: LiveGateway, fresh: WebService
) -> None:
    fresh.plan(Frames([text("Hel"), CLOSE]))
    seen = ask(gateway, True, model=MODEL)
    assert (seen.seen.content, seen.seen.finishes, len(fresh.asked)) == ("Hel", [], 1)


def test_what_the_service_may_send_that_means_nothing(gateway: LiveGateway, fresh: WebService) -> None:
    """Unknown frames, wrong types, empty frames, echoes of the question, a text that is set again."""
    odd: list[Json | bytes] = [
        b"", {"heartbeat": {}}, {"unknown": [1]}, {"block": 5}, {"chat": {"id": 7}}, {"message": "x"},
        {"block": {"text": {"content": None}}}, {"block": {"text": []}},
        {"message": {"refs": {"searchChunks": 3}}},
        {"message": {"refs": {"searchChunks": [1, {"base": {"url": 4}}, {"base": {"url": "https://a.example"}}]}}},
        {"op": "set", "block": {"id": "t", "tool": {"args": "{"}}},
        {"block": {"stage": {}, "multiStage": {}}},
        {"op": "set", "block": {"id": "text", "text": {"content": "He"}}},
        {"op": "append", "block": {"id": "text", "text": {"content": "l\ufffd"}}},
        {"op": "set", "block": {"id": "text", "text": {"content": "Hel\ufffdlo"}}},
        {"op": "set", "block": {"id": "text", "text": {"content": "Other"}}},
        {"op": "set", "block": {"id": "th", "text": {"content": "hm", "flags": "thinking"}}},
    ]  # fmt: skip
    fresh.plan(Frames([*(framed(each) for each in odd), framed({"done": {}}), trailer()]))
    seen = ask(gateway, False, model=MODEL)
    assert (seen.seen.content, seen.ledger) == ("Hel\ufffdlo", CHARGED)
    assert seen.seen.bodies[0]["choices"][0]["message"]["reasoning_content"] == "hm"


def test_an_answer_without_its_last_frame_is_whole_once_it_is_done(own: WebService, tmp_path: Path) -> None:
    with with_web(own, tmp_path) as gateway:
        gateway.never_wait(own.up, AFTER_OVER)
        for end in (HANG, CLOSE, RESET):
            own.plan(Frames([text("Hello"), framed({"done": {}}), end]))
            assert ask(gateway, True, model=MODEL).seen.finishes == ["stop"]
        gateway.until(lambda: not own.chats)


@dataclass(frozen=True)
class Endless:
    """The same bytes again and again."""

    piece: bytes
    head: bytes = b""

    def reply(self, request: Request) -> Reply:
        def parts() -> Iterator[Part]:
            yield self.head
            while True:
                yield self.piece

        return connect(parts())


PAGES = [{"base": {"url": f"https://a.example/{at}"}} for at in range(300)]
SMALL = {"text": {"content": "z"}}
FLOODS = {
    "one frame": Endless(b"x" * 65_536, b"\0\0\x7f\xff\xff"),
    "heartbeats": Endless(framed({"heartbeat": {}}) * 2_000),
    "text": Endless(text("y" * 60_000)),
    "blocks": Endless(b"".join(framed({"block": {"id": str(at), **SMALL}}) for at in range(2_000))),
    "sources": Endless(framed({"message": {"refs": {"searchChunks": PAGES}}})),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_within_the_bounds(own: WebService, tmp_path: Path, name: str) -> None:
    up = own.up
    bounds = {"answer_limit": 400_000, "first_byte_timeout": 1.0, "idle_timeout": 1.0}
    with with_web(own, tmp_path, **bounds) as gateway:
        up.at(CHAT, FLOODS[name])
        key = gateway.key()
        with streaming(gateway, key, model=MODEL) as (answer, lines):
            size = sum(map(len, lines))
        assert size < 2_000_000
        assert ledger(gateway, key) == NOT_CHARGED, answer.status_code
        gateway.until(lambda: all(each.closed_early.is_set() for each in up.requests if each.path == CHAT))
        gateway.nothing_left(key)


def test_a_client_that_leaves_ends_the_call_and_the_chat(gateway: LiveGateway, fresh: WebService) -> None:
    fresh.plan(Frames([text("Hello"), HANG]))
    key = gateway.key()
    with streaming(gateway, key, model=MODEL) as (_, lines):
        assert "Hello" in next(line for line in lines if 'content":"H' in line)
    sent = next(each for each in fresh.up.requests if each.path == CHAT)
    assert sent.closed_early.wait(20)
    gateway.until(lambda: fresh.deleted and not fresh.chats)


def test_a_token_serves_two_chats_at_a_time(gateway: LiveGateway, fresh: WebService) -> None:
    """The account would be refused for more; further requests wait for a place."""
    from concurrent.futures import ThreadPoolExecutor

    key = gateway.key()
    with ThreadPoolExecutor(3) as pool:
        fresh.plan(Frames([text("a"), HANG]), Frames([text("b"), HANG]))
        with (
            streaming(gateway, key, model=MODEL) as (_, one),
            streaming(gateway, key, model=MODEL) as (_, two),
        ):
            next(one), next(two)
            waiting = pool.submit(gateway.chat, key, model=MODEL)
            gateway.rest()
            assert (len(fresh.asked), waiting.done()) == (2, False)
        assert waiting.result().json()["choices"][0]["message"]["content"] == TEXT


def test_an_error_with_secrets_and_pages_is_not_shown(gateway: LiveGateway, fresh: WebService) -> None:
    words = "rate for org-0123456789 sk-abcdefgh12345 Bearer abc.def"
    fresh.plan(*[Frames([trailer("resource_exhausted", words=words)])] * 3)
    answer = gateway.chat(gateway.key(), model=MODEL)
    assert answer.status_code == 429
    assert not [word for word in ("org-0123456789", "sk-abcdefgh12345", "abc.def") if word in answer.text]
    assert json.loads(answer.text)["error"]["message"].startswith("rate for")


def test_the_answer_of_a_bad_frame_among_good_ones_keeps_the_good_ones(
    gateway: LiveGateway, fresh: WebService
) -> None:
    fresh.plan(Connect([text("Hel") + framed(b"{")]))
    seen = ask(gateway, True, model=MODEL)
    assert seen.seen.content == "Hel"
