"""Budgets of keys and accounts: what is reserved, lowered, refused and booked, in all three formats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget
from kimi_gateway.catalog import models
from kimi_gateway.net.http import ConnectFailed, ConnectionLost
from support.budgeting import limit, spent
from support.error_shape import anthropic_error, openai_error
from support.inprocess import NOW, Answered, InProcess, Sent, Told, streamed, told
from upstream.kimi import chat_events, error, usage_of

HELLO = [{"role": "user", "content": "Hello"}]
FORMATS = {
    "chat": ("/v1/chat/completions", {"messages": HELLO}, "max_tokens"),
    "messages": ("/v1/messages", {"messages": HELLO}, "max_tokens"),
    "responses": ("/v1/responses", {"input": "Hello"}, "max_output_tokens"),
}
K26 = "kimi-k2.6"  # 0.95 USD for a million tokens of input, 0.16 from the cache, 4.00 for output


def answers(prompt: int, completion: int, cached: int = 0) -> Any:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached,
             "total_tokens": prompt + completion}  # fmt: skip

    def answer(sent: Sent) -> Told:
        return streamed(*chat_events(model=sent.body["model"], usage=usage))

    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_the_true_cost_is_booked_and_the_output_limit_is_lowered(
    desk: InProcess, format: str, stream: bool
) -> None:
    path, body, name = FORMATS[format]
    key = desk.key()
    limit(desk, key, Budget("usd", "day", 10_000), Budget("tokens", "total", 100_000))
    desk.client.answer = answers(1_000, 100, cached=400)
    answer = desk.call("POST", path, {"model": K26, name: 8_000, "stream": stream, **body}, key)
    assert answer.status == 200
    assert spent(desk, key) == [600 * 95 // 100 + 400 * 16 // 100 + 100 * 4, 1_100]
    sent = desk.client.chats[-1].body["max_completion_tokens"]
    assert 2_000 < sent < 2_500  # 10,000 micro-dollars at 4 a token, without the input's bound
    assert name in answer.headers["x-param-ignored"]
    assert desk.account(key).consumed == 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_budget_that_leaves_too_little_refuses_with_its_name_and_reset(
    desk: InProcess, format: str
) -> None:
    path, body, name = FORMATS[format]
    key = desk.key()
    limit(desk, key, Budget("usd", "day", 1_000), Budget("usd", "month", 10**9))
    answer = desk.call("POST", path, {"model": K26, name: 8_000, **body}, key)
    assert answer.status == 403
    if format == "messages":
        text = anthropic_error(answer.json)["message"]
    else:
        told = openai_error(answer.json)
        assert (told["type"], told["code"]) == ("insufficient_quota", "budget_exceeded")
        text = told["message"]
    assert "$0.001 a day of this key" in text
    assert "It resets at 2026-" in text
    assert answer.headers["x-should-retry"] == "false"
    assert desk.client.chats == []
    account = desk.account(key)
    assert (account.credits, account.reserved, spent(desk, key)) == (100, 0, [0, 0])
    desk.call("POST", path, {"model": K26, name: 100, **body}, key)
    assert len(desk.client.chats) == 1  # what was asked for is less than 256 tokens, and fits


def test_the_budget_of_an_account_is_shared_by_its_keys(desk: InProcess) -> None:
    first = desk.key()
    account = desk.account(first)
    desk.run(desk.store.set_budgets(account.id, [Budget("tokens", "week", 2_000)], int(desk.now)))
    desk.client.answer = answers(900, 100)
    assert desk.chat(first, {"model": K26, "max_tokens": 300}).status == 200
    second = keys.new_key()
    desk.run(desk.store.rotate_key(keys.digest(first), keys.digest(second), NOW * 2, int(desk.now)))
    assert desk.chat(second, {"model": K26, "max_tokens": 300}).status == 200
    refused = desk.chat(first, {"model": K26, "max_tokens": 300})
    assert (refused.status, refused.json["error"]["code"]) == (403, "budget_exceeded")
    assert "2,000 tokens a week of this account" in refused.json["error"]["message"]
    desk.now += 7 * 86_400
    assert desk.chat(first, {"model": K26, "max_tokens": 300}).status == 200


FAILURES: dict[str, tuple[Any, int, bool]] = {
    "refused": (lambda sent: told(error("invalid_request_error", "no"), 400), 1, False),
    "unreachable": (ConnectFailed("no route"), 3, False),
    "cut before any content": (lambda sent: streamed(done=False), 3, True),
    "cut in the middle": (lambda sent: streamed(*chat_events(model=K26)[:2], done=False), 1, True),
    "lost behind the request": (ConnectionLost("reset"), 3, True),
    "server error": (lambda sent: told(error("server_error", "no"), 500), 3, True),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_booked_at_its_bound_where_it_may_have_been_billed(desk: InProcess, case: str) -> None:
    how, attempts, booked = FAILURES[case]

    def answer(sent: Sent) -> Told:
        if isinstance(how, Exception):
            raise how
        result: Told = how(sent)
        return result

    key = desk.key()
    limit(desk, key, Budget("usd", "day", 10**7))
    desk.client.answer = answer
    desk.chat(key, {"model": K26, "max_tokens": 1_000})
    assert len(desk.client.chats) == attempts
    (amount,) = spent(desk, key)
    assert (4_000 * attempts < amount < 4_500 * attempts) if booked else amount == 0
    assert desk.account(key).consumed == 0


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_another_attempt_is_made_only_after_a_reservation_of_its_own(
    desk: InProcess, attempts: int, choices: int
) -> None:
    """Each takes less than 4,500 micro-dollars; the budget is for so many."""
    key = desk.key()
    limit(desk, key, Budget("usd", "day", 4_500 * (choices + attempts - 1)))
    desk.client.answer = lambda sent: streamed(done=False)
    desk.chat(key, {"model": K26, "max_tokens": 1_000, "n": choices})
    sent = len(desk.client.chats)
    assert choices <= sent <= choices + attempts - 1
    (amount,) = spent(desk, key)
    assert 4_000 * sent < amount <= 4_500 * (choices + attempts - 1)
    assert (desk.account(key).consumed, desk.account(key).reserved) == (0, 0)


@pytest.mark.parametrize("choices", [1, 2])
def test_an_attempt_that_succeeds_is_booked_by_its_usage_beside_the_lost_one(
    desk: InProcess, choices: int
) -> None:
    key, good = desk.key(), answers(1_000, 100)
    limit(desk, key, Budget("usd", "day", 10**7))
    lost = [streamed(done=False)]
    desk.client.answer = lambda sent: lost.pop() if lost else good(sent)
    assert desk.chat(key, {"model": K26, "max_tokens": 1_000, "n": choices}).status == 200
    assert len(desk.client.chats) == choices + 1
    (amount,) = spent(desk, key)
    assert 4_000 < amount - choices * (950 + 400) < 4_500
    assert desk.account(key).consumed == 1


def test_a_model_without_a_price_is_refused_only_by_budgets_in_usd(desk: InProcess) -> None:
    key = desk.key()
    row = replace(models.neutral("kimi-new"), price=None)
    desk.running.gateway.registry.rows["kimi-new"] = row
    limit(desk, key, Budget("usd", "total", 10**9))
    refused = desk.chat(key, {"model": "kimi-new", "max_tokens": 300})
    assert (refused.status, "price" in refused.json["error"]["message"]) == (403, True)
    limit(desk, key, Budget("tokens", "total", 10**9))
    assert desk.chat(key, {"model": "kimi-new", "max_tokens": 300}).status == 200


def test_a_model_without_a_price_counts_as_free_if_the_operator_says_so() -> None:
    with InProcess(unpriced="allow") as desk:
        key = desk.key()
        desk.running.gateway.registry.rows["kimi-new"] = replace(models.neutral("kimi-new"), price=None)
        limit(desk, key, Budget("usd", "total", 1), Budget("tokens", "total", 10**9))
        assert desk.chat(key, {"model": "kimi-new", "max_tokens": 300}).status == 200
        assert spent(desk, key)[0] == 0
        assert spent(desk, key)[1] > 0
        assert desk.chat(key, {"model": K26, "max_tokens": 300}).status == 403


def test_a_platform_that_bills_in_another_currency_has_no_price_in_usd(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own price is in the log as such."""
    caplog.set_level("INFO", "kimi_gateway")
    file, price = tmp_path / "models.json", {"input": 4.0, "cached": 0.7, "output": 16.0, "currency": "CNY"}
    file.write_text(json.dumps({"models": [{"id": "mine", "like": K26, "price": price}]}))
    with InProcess(base_url="https://api.moonshot.cn/v1", models=file) as desk:
        key = desk.key()
        desk.client.answer = answers(1_000_000, 1_000_000)
        for model, cost in (("mine", 20.0), (K26, 33.5), ("kimi-k3.1-pro", None)):
            caplog.clear()
            assert desk.chat(key, {"model": model}).status == 200
            (line,) = [each.fields for each in caplog.records if each.message == "request"]  # type: ignore[attr-defined]
            assert (line.get("cost_cny"), line.get("cost_usd")) == (cost, None)
        limit(desk, key, Budget("usd", "total", 10**9))
        for model in ("mine", K26):
            refused = desk.chat(key, {"model": model, "max_tokens": 300})
            assert (refused.status, "in USD" in refused.json["error"]["message"]) == (403, True)


@pytest.mark.parametrize(("ttl", "dollars"), [("5m", 3.0), ("1h", 6.0)])
def test_input_that_is_cached_for_an_hour_has_the_price_of_its_writing(
    desk: InProcess, ttl: str, dollars: float
) -> None:
    key = desk.key()
    limit(desk, key, Budget("usd", "day", 10**9))
    desk.client.answer = answers(1_000, 0)
    body = {"model": "kimi-k3", "max_tokens": 300, "prompt_cache_options": {"mode": "implicit", "ttl": ttl}}
    assert desk.chat(key, body).status == 200
    assert spent(desk, key) == [1_000 * dollars]


def test_a_bill_above_the_reservation_is_booked_and_alarmed(
    desk: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    key = desk.key()
    limit(desk, key, Budget("tokens", "day", 100_000))
    desk.client.answer = answers(90_000, 30_000)
    assert desk.chat(key, {"model": K26, "max_tokens": 300}).status == 200
    assert spent(desk, key) == [120_000]
    (alarm,) = [each for each in caplog.records if each.message == "billed_above_bound"]
    assert alarm.levelname == "ERROR"
    assert desk.chat(key, {"model": K26, "max_tokens": 300}).status == 403


def in_books(desk: InProcess) -> int:
    """Tokens that are spent or reserved at this moment, of the only account."""
    (held,) = desk.store._accounts.values()
    return sum(held.spent.values())


PNG, JPEG, BMP = "iVBORw0KGgo=", "/9j/4AAQSkZJRg==", "Qk0" + 33 * "A"
GIF, WEBP = "R0lGODlhAQABAIAAAAAAAP==", "UklGRiQAAABXRUJQ"


@pytest.mark.parametrize(
    ("model", "pictures", "bound"),
    [
        (K26, [f"data:image/png;base64,{PNG}"], 4_608),
        (K26, [f"data:image/jpeg;base64,{JPEG}", f"data:image/bmp;base64,{BMP}"], 9_216),
        ("kimi-k3", ["data:image/png;base64,iVBORw0KGgoA" + 30_000 * "AAAA"], 16_896),
        (K26, [f"data:image/gif;base64,{GIF}"], 262_144),  # it may move, and is a video then
        (K26, [f"data:image/png;base64,{GIF}"], 262_144),
        (K26, [f"data:image/webp;base64,{WEBP}"], 262_144),
        (K26, [f"data:image/png;base64,{PNG}", f"data:image/gif;base64,{GIF}"], 262_144),
        ("kimi-k2.7-code", [f"data:image/png;base64,{PNG}"], 262_144),  # nobody says what it counts
    ],
)
def test_a_picture_reserves_what_its_model_takes_at_most(
    desk: InProcess, model: str, pictures: list[str], bound: int
) -> None:
    """And the whole window if that is not known."""
    key, seen = desk.key(), list[int]()
    limit(desk, key, Budget("tokens", "day", 10**7))

    def answer(sent: Sent) -> Told:
        seen.append(in_books(desk))
        return streamed(*chat_events(model=model, usage=usage_of(10, 5)))

    desk.client.answer = answer
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    body = {"model": model, "max_tokens": 300, "messages": [{"role": "user", "content": parts}]}
    assert desk.chat(key, body).status == 200, model
    assert bound + 300 <= seen[0] <= bound + 300 + (0 if bound == 262_144 else 800)
    assert spent(desk, key) == [15]


@pytest.mark.parametrize("room", [True, False])
def test_an_empty_answer_is_repeated_if_the_budget_pays_for_both(desk: InProcess, room: bool) -> None:
    key, chats, reserved = desk.key(), 0, list[int]()
    limit(desk, key, Budget("tokens", "day", 1_400 if room else 700))

    def answer(sent: Sent) -> Told:
        nonlocal chats
        chats += 1
        reserved.append(in_books(desk))
        text = "" if chats == 1 else "Well."
        return streamed(*chat_events(text, model=K26, usage=usage_of(40, 1 if chats == 1 else 20)))

    desk.client.answer = answer
    answered = desk.chat(key, {"model": K26, "max_tokens": 300})
    assert answered.status == 200
    assert chats == (2 if room else 1)
    assert reserved[-1] >= 41 * (chats - 1) + 300, "it was not reserved"
    assert spent(desk, key) == [101 if room else 41]
    (row,) = desk.run(desk.store.usage(0, desk.account(key).id))
    assert row.input + row.output == spent(desk, key)[0]


def test_each_choice_is_reserved(desk: InProcess) -> None:
    key = desk.key()
    limit(desk, key, Budget("usd", "day", 4_500))
    assert desk.chat(key, {"model": K26, "max_tokens": 500, "n": 2}).status == 200
    assert len(desk.client.chats) == 2
    refused = desk.chat(key, {"model": K26, "max_tokens": 250, "n": 4})
    assert refused.status in (200, 403)
    assert spent(desk, key)[0] <= 4_500


def test_tokens_a_minute_are_counted_by_an_estimate_and_trued_up(desk: InProcess) -> None:
    key = desk.key()
    limit(desk, key, Budget("tokens", "minute", 2_000))
    desk.client.answer = answers(1_500, 400)
    first = desk.chat(key, {"model": K26, "max_tokens": 50_000})
    assert first.status == 200
    assert desk.client.chats[-1].body["max_completion_tokens"] == 50_000
    assert first.headers["x-ratelimit-limit-tokens"] == "2000"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 1_000
    assert spent(desk, key) == [1_900]
    refused = desk.chat(key, {"model": K26, "max_tokens": 500})
    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    desk.now += 60
    assert desk.chat(key, {"model": K26, "max_tokens": 500}).status == 200


def unreadable(answer: Answered) -> set[str]:
    """Headers that a page of another origin cannot read; of these the list of safe ones is the browsers'."""
    safe = {"cache-control", "content-type", "content-length", "x-accel-buffering"}
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    return {name for name in answer.headers if not name.startswith("access-control-")} - safe - exposed


def test_a_page_of_another_origin_can_read_every_limit(desk: InProcess) -> None:
    key = desk.key()
    limit(desk, key, Budget("tokens", "minute", 2_000))
    body = {"model": K26, "max_tokens": 500}
    told = [desk.chat(key, body | {"stream": stream}) for stream in (True, False)]
    assert "x-ratelimit-remaining-tokens" in told[0].headers
    told.append(desk.chat(desk.key(0), {}))
    assert [unreadable(answer) for answer in told] == [set(), set(), set()]


def test_windows_are_named_as_openai_names_them_too(desk: InProcess) -> None:
    answer = desk.chat(desk.key(), {})
    assert answer.headers["x-ratelimit-limit-requests"] == answer.headers["x-ratelimit-limit"] == "20"
    assert answer.headers["x-ratelimit-remaining-requests"] == "19"
    left = int(answer.headers["x-ratelimit-reset"]) - NOW
    assert answer.headers["x-ratelimit-reset-requests"] == f"{left}s"
    assert "x-ratelimit-limit-tokens" not in answer.headers
