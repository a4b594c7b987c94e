"""What repeated requests with an `Idempotency-Key` can cost: each is counted, by its size too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.accounts.bucket import Buckets
from kimi_gateway.accounts.values import Limits
from kimi_gateway.flow import idempotency
from support.formats import CHAT, FORMATS, Format
from support.inprocess import InProcess

NAME = ("idempotency-key", "7d9f3a5e-one")
REPLAYED = "idempotent-replayed"


def ask(desk: InProcess, key: str, *more: tuple[str, str], **body: Any) -> Any:
    return desk.call("POST", CHAT.path, CHAT.asked(**body), key, *more)


TOO_OFTEN = "refused before they cost anything"


def told_of(answered: Any) -> str:
    return str(answered.json["error"]["message"])


def test_names_of_a_wrong_form_count_among_the_refused_requests(desk: InProcess) -> None:
    key = desk.key()
    wrong = [ask(desk, key, ("idempotency-key", "n" * 256)).status for _ in range(301)]
    assert wrong == [400] * 300 + [429]
    assert TOO_OFTEN in told_of(ask(desk, key))


def test_repeated_requests_above_their_bound_count_too_and_are_no_longer_read(desk: InProcess) -> None:
    key = desk.key(limits=Limits(minute=5))
    refused = [answered for _ in range(400) if (answered := ask(desk, key, NAME)).status == 429]
    assert len(refused) == 400 - 61
    assert [TOO_OFTEN in told_of(answered) for answered in refused] == [False] * 299 + [True] * 40


def test_a_large_request_that_is_repeated_counts_by_its_size(desk: InProcess) -> None:
    key, long = desk.key(), "word " * 200_000
    statuses = [ask(desk, key, NAME, question=long).status for _ in range(25)]
    again = 300 // (1 + 1_000_000 // 65_536)  # and the one that empties the bucket
    assert statuses == [200] * (1 + again + 1) + [429] * (25 - again - 2)
    assert TOO_OFTEN in told_of(ask(desk, key))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_the_names_of_an_account_have_a_bound_and_nothing_is_charged_twice(
    desk: InProcess, format: Format
) -> None:
    """Also of an unlimited account, which pays for none of them."""
    desk.running.gateway.gate.names = Buckets(rate=2, burst=5)
    crowd, other = desk.key(None), desk.key()

    def named(key: str, number: int) -> Any:
        return desk.call("POST", format.path, format.asked(), key, ("idempotency-key", f"name-{number}"))

    answers = [named(crowd, number) for number in range(9)]
    assert [each.status for each in answers] == [200] * 5 + [429] * 4
    assert len(desk.store._answers._claims) == 5
    told = format.error(answers[-1].json)
    assert "Too many new Idempotency-Keys of this account" in told["message"]
    assert told["type"] == format.types[429]
    assert answers[-1].headers["retry-after"] == "1"
    again = named(crowd, 3)  # a known name gets its answer
    assert (again.status, again.headers[REPLAYED]) == (200, "true")
    assert desk.call("POST", format.path, format.asked(), crowd).status == 200
    assert named(other, 3).status == 200
    assert desk.account(other).consumed == 1
    desk.now += 1
    assert [named(crowd, number).status for number in range(4, 9)] == [200, 200, 200, 429, 429]
    (row,) = desk.run(desk.store.usage(0, desk.account(crowd).id))
    assert row.requests == 5 + 1 + 2


def test_the_names_that_are_kept_at_a_time_are_bounded_by_the_account(desk: InProcess) -> None:
    names = desk.running.gateway.gate.names
    assert names._burst + names._rate * idempotency.KEPT < 300_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(), of, max_size=4),
)


@given(JSON)
def test_a_large_body_is_compared_by_the_same_text_as_a_small_one(value: Any) -> None:
    parts: list[bytes] = []
    idempotency._write(value, parts.append)
    assert b"".join(parts) == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_a_large_body_is_written_in_small_parts() -> None:
    parts: list[bytes] = []
    idempotency._write({f"n{at}": {"a": [at] * 3} for at in range(5_000)}, parts.append)
    assert max(map(len, parts)) < 20


def test_the_order_of_members_does_not_make_another_request_of_a_large_one(desk: InProcess) -> None:
    key, body = desk.key(), {"model": "kimi-k3", **CHAT.body("Hello " * 20_000)}
    assert desk.chat(key, json.dumps(body).encode(), NAME).status == 200
    turned = json.dumps(dict(reversed(body.items())), indent=2).encode()
    assert REPLAYED in desk.chat(key, turned, NAME).headers
