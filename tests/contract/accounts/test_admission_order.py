"""What is found before the admission is neither counted nor written. What only costly work finds is counted
in the windows, and its credit given back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Limits
from kimi_gateway.storage.memory_cache import MemoryCache
from support.examples import examples
from support.inprocess import Answered, InProcess

GOOD = {"model": "kimi-k3", "input": "Hello"}
TOOL = {"type": "function", "name": "get", "parameters": {"type": "object", "properties": {}}}


class CountedCache(MemoryCache):
    """Counts what is asked of it, and is down when told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.recalled = self.kept = 0
        self.down = False

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        self.kept += 1
        await super().keep(account, entries, until)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        self.recalled += 1
        if self.down:
            raise StoreDown("down")
        return await super().recall(account, names, now)


@pytest.fixture
def cache(desk: InProcess) -> CountedCache:
    cache = desk.running.gateway.conversations._cache = CountedCache()
    return cache


def respond(desk: InProcess, key: str, **body: Any) -> Answered:
    return desk.call("POST", "/v1/responses", GOOD | body, key)


def remaining(desk: InProcess, key: str) -> int:
    """Requests left in the minute, this one counted."""
    return int(respond(desk, key).headers["x-ratelimit-remaining"])


def test_a_key_without_credits_or_over_its_limit_recalls_nothing(
    desk: InProcess, cache: CountedCache
) -> None:
    named = respond(desk, desk.key()).json["id"]
    for key in (desk.key(0), desk.key(limits=Limits(day=0))):
        for _ in range(2):
            assert respond(desk, key, previous_response_id=named).status in (403, 429)
    assert cache.recalled == 0


@pytest.mark.parametrize("body", [
    {"tools": [TOOL, TOOL]}, {"input": [{"type": "function_call"}]}, {"tool_choice": "none such"},
    {"input": [{"type": "of no kind"}]}, {"temperature": 3},
])  # fmt: skip
def test_the_shape_is_checked_before_anything_is_recalled(
    desk: InProcess, cache: CountedCache, body: dict[str, Any]
) -> None:
    key = desk.key(limits=Limits(minute=9))
    named = respond(desk, key).json["id"]
    assert respond(desk, key, previous_response_id=named, **body).status == 400
    assert cache.recalled == 0
    assert remaining(desk, key) == 7


def test_what_only_a_recall_finds_is_counted_and_not_charged(desk: InProcess, cache: CountedCache) -> None:
    key = desk.key(limits=Limits(minute=9))
    refused = respond(desk, key, previous_response_id="resp_0abc")
    assert (refused.status, refused.json["error"]["param"]) == (400, "previous_response_id")
    assert refused.headers["x-credits-remaining"] == "100"
    cache.down = True
    assert respond(desk, key, previous_response_id="resp_0abc").status == 503
    assert remaining(desk, key) == 6
    assert (desk.account(key).credits, desk.account(key).reserved) == (99, 0)
    (row,) = desk.run(desk.store.usage(0, desk.account(key).id))
    assert (row.requests, row.errors) == (1, 2)


def test_a_gateway_that_keeps_nothing_says_so_and_keeps_nothing() -> None:
    with InProcess(keep_conversations=False) as desk:
        cache = desk.running.gateway.conversations._cache = CountedCache()
        key = desk.key()
        first = respond(desk, key).json
        refused = respond(desk, key, previous_response_id=first["id"])
        assert (refused.status, refused.json["error"]["param"]) == (400, "previous_response_id")
        assert "keeps no answers" in refused.json["error"]["message"]
        item = {"type": "item_reference", "id": first["output"][0]["id"]}
        assert respond(desk, key, input=[item, {"role": "user", "content": "Go on"}]).status in (200, 400)
        calls = [{"id": "a:0", "type": "function", "function": {"name": "get", "arguments": "{}"}}]
        history = [
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a:0", "content": "42"},
        ]
        tools = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]
        assert desk.chat(key, {"messages": history, "tools": tools, "model": "kimi-k2.6"}).status == 200
        assert (cache.recalled, cache.kept) == (0, 0)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "5m", "ttl", "json_schema", "get"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["ttl", "type", "json_schema", "schema", "function", "name", "effort"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
PASSED_ON = (
    "prompt_cache_options", "response_format", "reasoning_effort", "safety_identifier", "tool_choice",
    "max_completion_tokens", "output_config", "thinking", "cache_control", "metadata",
)  # fmt: skip


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(more=st.dictionaries(st.sampled_from(PASSED_ON), _JSON, max_size=3), tools=st.booleans())
def test_no_field_of_messages_holds_a_credit_on_the_native_path(more: dict[str, Any], tools: bool) -> None:
    with InProcess(anthropic="native") as desk:
        _ask_natively(desk, more, tools)


EXAMPLES: list[dict[str, Any]] = [
    {"prompt_cache_options": {}},
    {"prompt_cache_options": 7},
    {"response_format": {"type": "json_schema", "json_schema": {}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": None}}},
]


@pytest.mark.parametrize("more", EXAMPLES, ids=str)
def test_fields_that_held_one(more: dict[str, Any]) -> None:
    with InProcess(anthropic="native") as desk:
        _ask_natively(desk, more, tools=False)


def _ask_natively(desk: InProcess, more: dict[str, Any], tools: bool) -> None:
    key = desk.key(9)
    body: dict[str, Any] = {
        "model": "kimi-k3",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "a"}],
    }
    if tools:
        body["tools"] = [{"name": "get", "input_schema": {"type": "object"}}]
    answer = desk.call("POST", "/v1/messages", body | more, key)
    assert answer.status in (200, 400, 503), answer.body  # 503: this upstream has no such endpoint
    assert desk.account(key).reserved == 0
