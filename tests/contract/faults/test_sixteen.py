"""The sixteen faults that the literature on failover knows, each with one account and with two: what the
caller sees, what the upstream sees, what is charged, what the log names. docs/reliability.md has this table.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest

from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.tokens.affinity import beginning, ranked
from support import ROOT
from support.exchange import CHARGED, NOT_CHARGED, Exchange, ask
from support.live import LiveGateway
from upstream import (
    ByToken,
    Cut,
    Delay,
    InTurn,
    Kimi,
    Malformed,
    NoDone,
    ResetBeforeHeaders,
    ScriptedUpstream,
    Silence,
    Sse,
    Stall,
    Status,
    Step,
    chat_events,
    error,
    frame,
    length,
    rate_limited,
)

DOCS = ROOT / "docs" / "reliability.md"
TEXT = "".join(f"piece {number:03} " for number in range(58))
CHUNKS = chat_events(TEXT, pieces=58)  # role, 58 of content, finish with usage
SIXTY = Sse(CHUNKS)
FORTY = length(map(frame, CHUNKS[:40]))
BROKEN = Status(500, error("server_error", "internal of org-0123456789"))

SERVED, BEGUN = "served", "begun"  # whole; content, then an error event, or 503 where nothing streams
UNAVAILABLE, TOO_LONG, FILTERED = (
    "503 service_unavailable",
    "400 context_length_exceeded",
    "400 content_filter",
)
LIMITED = "429 rate_limit_exceeded, Retry-After 7"
PROMPT = "Which way?"


@dataclass(frozen=True)
class Fault:
    """`first` is the account that the conversation belongs to, `second` the other one. What is seen, and the
    attempts by account, of each request that is made, with the first alone and with both."""

    first: Step
    alone: tuple[str, ...]
    both: tuple[str, ...]
    saw: str = SERVED
    saw_of_both: str = ""
    second: Step = Kimi()


def once(step: Step) -> Step:
    return InTurn([step, SIXTY])


FAULTS: dict[str, Fault] = {
    "429 with Retry-After": Fault(
        rate_limited("rate_limit_reached", 7), ("a",), ("ab", "b"), LIMITED, SERVED
    ),
    "429 without Retry-After": Fault(once(rate_limited("engine_overloaded")), ("aa",), ("ab",)),
    "500 once": Fault(once(BROKEN), ("aa",), ("ab",)),
    "503 for ever": Fault(Status(503), ("aaa",), ("aba",), UNAVAILABLE, second=Status(503)),
    "reset": Fault(once(ResetBeforeHeaders()), ("aa",), ("ab",)),
    "silent upstream": Fault(Silence(), ("a",), ("a",), UNAVAILABLE),
    "slow first byte": Fault(Delay(0.5, SIXTY), ("a",), ("a",)),
    "cut at 40 of 60 chunks": Fault(Cut(FORTY, SIXTY), ("a",), ("a",), BEGUN),
    "stall": Fault(Stall(40, SIXTY), ("a",), ("a",), BEGUN),
    "malformed chunk": Fault(Malformed(40, SIXTY), ("a",), ("a",), BEGUN),
    "missing [DONE]": Fault(NoDone(SIXTY), ("a",), ("a",)),
    "context-length 400": Fault(
        Status(400, error("invalid_request_error", "Your request exceeded model token limit : 1048576")),
        ("a",), ("a",), TOO_LONG,
    ),
    "content-filter 400": Fault(Status(400, error("content_filter", "high risk")), ("a",), ("a",), FILTERED),
    "flapping token": Fault(once(BROKEN), ("aa", "aa", "aa"), ("ab", "a", "ab")),
    "dead token": Fault(
        Status(401, error("invalid_authentication_error", "Invalid Authentication")),
        ("a", "a"), ("ab", "b", "b"), UNAVAILABLE, SERVED,
    ),
    "accounting": Fault(Status(503), ("aaa",), ("ab",), UNAVAILABLE, SERVED),
}  # fmt: skip
A, B = (Token.of(f"sk-upstream-{name}") for name in ("a", "b"))
FIRST, SECOND = ranked(beginning({"messages": [{"role": "user", "content": PROMPT}]}), (A, B))
Case = tuple[str, int, bool]  # fault, accounts, streamed
CASES = list(itertools.product(FAULTS, (1, 2), (True, False)))


def named(case: Case) -> str:
    name, accounts, stream = case
    return f"{name}, {'both' if accounts > 1 else 'alone'}, {'stream' if stream else 'json'}"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Case, Future[None]]]:
    """Many at a time, since most of them wait; each with an upstream and a gateway of its own."""
    with ThreadPoolExecutor(8) as pool:
        yield {case: pool.submit(play, tmp_path_factory.mktemp("gateway"), *case) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=map(named, CASES))
def test_a_fault_of_the_literature_comes_to_what_the_table_says(
    played: dict[Case, Future[None]], case: Case
) -> None:
    played[case].result()


def play(folder: Path, name: str, accounts: int, stream: bool) -> None:
    fault = FAULTS[name]
    tokens = (FIRST.secret, SECOND.secret)[:accounts]
    expected = fault.both if accounts == 2 else fault.alone
    saw = fault.saw_of_both if accounts == 2 and fault.saw_of_both else fault.saw
    patience = {"first_byte_timeout": 60.0, "ping_interval": 0.2}
    with ScriptedUpstream() as up, LiveGateway(folder, up.url, tokens, **patience) as gateway:
        gateway.never_wait(up, 100)
        up.always(ByToken({FIRST.secret: deepcopy(fault.first), SECOND.secret: fault.second}))
        for attempts in expected:
            up.requests.clear()
            asked = ask(gateway, stream, PROMPT, model="kimi-k2")
            assert "".join("ab"[chat.token == SECOND.secret] for chat in up.chats) == attempts
            is_seen(asked, saw, stream)
            assert asked.ledger == (CHARGED if saw == SERVED else NOT_CHARGED)
            is_accounted(asked, attempts)
        gateway.nothing_left(asked.key)


def is_seen(asked: Exchange, saw: str, stream: bool) -> None:
    seen = asked.seen
    if saw == SERVED:
        assert (seen.status, seen.error, seen.finishes, seen.done) == (200, None, ["stop"], True)
        assert seen.content in (TEXT, Kimi().text)
        assert {body["model"] for body in seen.bodies} == {"kimi-k2"}
        return
    assert seen.error is not None
    assert (seen.finishes, seen.streamed and seen.done) == ([], False)
    if saw == BEGUN and stream:
        assert (seen.status, seen.error["code"]) == (200, "service_unavailable")
        assert seen.content == TEXT[: 39 * len("piece 000 ")]
        return
    if seen.streamed:  # a comment went out before
        assert (seen.status, seen.content) == (200, "")
        assert seen.error["code"] == saw.split(", ")[0].split(" ")[1]
        return
    text = f"{seen.status} {seen.error['code']}"
    if seen.status == 429:
        text += f", Retry-After {seen.headers['retry-after']}"
    assert text == (UNAVAILABLE if saw == BEGUN else saw)


def is_accounted(asked: Exchange, attempts: str) -> None:
    """The log names every account that was asked, the last one being the one that answered, and the model."""
    asked.gateway.until(lambda: len(lines_of(asked)) == 1)
    (line,) = lines_of(asked)
    assert line["upstream_tokens"] == [{"a": FIRST, "b": SECOND}[letter].id for letter in attempts]
    assert (line["attempts"], line["model"], line["upstream_model"]) == (
        len(attempts), "kimi-k2", "kimi-k2.6",
    )  # fmt: skip
    assert [row.model for row in asked.gateway.usage(asked.key)] == ["kimi-k2"]


def lines_of(asked: Exchange) -> list[dict[str, object]]:
    account = asked.gateway.account(asked.key).id
    return [line for line in asked.gateway.lines("request") if line.get("account") == account]


def test_the_reliability_page_has_the_same_table() -> None:
    section = DOCS.read_text().split("## The sixteen faults")[1].split("\n## ")[0]
    rows = [re.split(r"\s*\|\s*", row)[1:-1] for row in section.splitlines() if row.startswith("| ")][1:]
    assert [row[0] for row in rows] == list(FAULTS)
    for name, alone, both, seen, _ in rows:
        fault = FAULTS[name]
        assert [part.strip("`") for part in alone.split(", ")] == list(fault.alone), name
        assert [part.strip("`") for part in both.split(", ")] == list(fault.both), name
        if name != "accounting" and seen != "the same":
            saw = {SERVED: "the answer", BEGUN: "an error event"}.get(fault.saw, fault.saw)
            assert saw.split(",")[0] in seen.replace("`", ""), name
