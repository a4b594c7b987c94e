"""What only tunes never refuses: any word is taken in all three formats, and an unknown one is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot import tuning
from support.formats import FORMATS
from support.inprocess import InProcess

Json = dict[str, Any]
# The field by its path, as it stands in each format.
WORDS: dict[str, tuple[str, ...]] = {
    "chat": ("thinking.type", "reasoning_effort", "prompt_cache_options.ttl", "verbosity", "service_tier",
             "prompt_cache_retention"),
    "messages": ("thinking.type", "thinking.display", "output_config.effort", "cache_control.type",
                 "cache_control.ttl", "service_tier", "reasoning_effort"),
    "responses": ("reasoning.effort", "reasoning.summary", "text.verbosity", "truncation", "service_tier",
                  "prompt_cache_retention"),
}  # fmt: skip
BESIDE: Json = {"thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral"}}
EACH_WORD = pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, fields in WORDS.items() for field in fields]
)
MODELS = ("kimi-k3", "kimi-k2.6", "kimi-k2.7-code", "kimi-k2")
DISPLAY_UPDATES = {"max_tokens": 1_024, "thinking": {"type": "adaptive", "display": "updates"}}


@pytest.fixture(scope="module")
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


def asked(name: str, field: str, value: object, model: str) -> Json:
    outer, _, inner = field.partition(".")
    beside = BESIDE.get(outer, {}) if name == "messages" else {}
    return FORMATS[name].asked(model=model) | {outer: {**beside, inner: value} if inner else value}


def ignored(desk: InProcess, name: str, body: Json) -> list[str]:
    answer = desk.call("POST", FORMATS[name].path, body, desk.key(None))
    assert answer.status == 200, answer.body
    return answer.headers.get("x-param-ignored", "").split(", ")


@EACH_WORD
@pytest.mark.parametrize("model", MODELS)
def test_an_unknown_word_is_taken_and_its_field_is_named(
    desk: InProcess, name: str, field: str, model: str
) -> None:
    for word in ("updates", "", "🙂 é", "x" * 300):
        assert field in ignored(desk, name, asked(name, field, word, model))


@EACH_WORD
def test_what_is_no_word_is_refused_by_its_name(desk: InProcess, name: str, field: str) -> None:
    if (name, field) == ("messages", "service_tier"):
        return  # left out unread, whatever it is
    for value in (3, True, ["high"], {}):
        answer = desk.call("POST", FORMATS[name].path, asked(name, field, value, "kimi-k3"), desk.key(None))
        assert answer.status == 400
        assert field in answer.json["error"]["message"]


def test_claude_codes_display_of_updates_is_served_and_shows_its_thinking(desk: InProcess) -> None:
    body = FORMATS["messages"].asked() | DISPLAY_UPDATES
    assert ignored(desk, "messages", body) == ["thinking.display"]


@pytest.mark.parametrize(
    ("name", "more", "effort"),
    [
        ("chat", {"reasoning_effort": "HIGH"}, "high"),
        ("chat", {"reasoning_effort": "turbo"}, "high"),
        ("chat", {"reasoning_effort": "maximum"}, "max"),
        ("chat", {"thinking": {"type": "off"}}, "low"),
        ("messages", {"output_config": {"effort": "minimal"}}, "low"),
        ("messages", {"output_config": {"effort": "lots"}}, "high"),
        ("responses", {"reasoning": {"effort": "lowest"}}, "low"),
    ],
)
def test_the_nearest_word_goes_upstream(desk: InProcess, name: str, more: Json, effort: str) -> None:
    ignored(desk, name, FORMATS[name].asked() | more)
    assert desk.client.chats[-1].body["reasoning_effort"] == effort


@pytest.mark.parametrize(("ttl", "sent"), [("2h", "1h"), ("60m", "1h"), ("10m", "5m"), ("ever", "5m")])
def test_a_time_to_live_becomes_the_nearest(desk: InProcess, ttl: str, sent: str) -> None:
    body = FORMATS["messages"].asked() | {"cache_control": {"type": "ephemeral", "ttl": ttl}}
    assert ignored(desk, "messages", body) == ["cache_control.ttl"]
    options = desk.client.chats[-1].body.get("prompt_cache_options", {"ttl": "5m"})
    assert options["ttl"] == sent


@pytest.mark.parametrize("name", FORMATS)
def test_known_words_are_not_named(desk: InProcess, name: str) -> None:
    more: dict[str, Json] = {
        "chat": {"reasoning_effort": "low", "thinking": {"type": "enabled"}},
        "messages": {**BESIDE, "output_config": {"effort": "xhigh"}},
        "responses": {"reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"},
                      "truncation": "auto"},
    }  # fmt: skip
    assert not {*WORDS[name]} & {*ignored(desk, name, FORMATS[name].asked() | more[name])}


@given(st.text())
def test_each_word_becomes_a_known_one(word: str) -> None:
    assert tuning.effort(word)[0] in tuning.EFFORTS
    assert tuning.thinking(word)[0] in ("enabled", "disabled", "adaptive")
    assert tuning.lifetime(word)[0] in ("5m", "1h")
