"""The official OpenAI SDK of Node, newest and old, and an old one of Python, unchanged, on a socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clients.drivers import Driver, Outcome
from kimi_gateway.accounts.values import Budget, Limits
from kimi_gateway.flow.search.tools import SEARCH
from kimi_gateway.pivot.call_ids import vendors
from support.live import HELLO, LiveGateway
from upstream import ErrorEvent, HtmlError, Kimi, ScriptedUpstream, Status, error, rate_limited
from upstream.kimi import REASONING, TEXT

BODY: dict[str, Any] = {"model": "kimi-k3", "messages": HELLO}
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def tools(**more: Any) -> list[dict[str, Any]]:
    names = ("get_weather", "get_time")
    return [{"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}} for name in names]


CALLS = [("get_weather", {"city": "Roma", "unit": "°C"}), ("get_time", {"zone": "Europe/Rome"})]


NODE = [pytest.param(("node", "openai"), id="node"), pytest.param(("node", "openai-old"), id="old-node")]


@pytest.fixture(scope="module", params=[*NODE, pytest.param(("python", "openai"), id="old-python")])
def sdk(request: pytest.FixtureRequest, gateway: LiveGateway) -> Iterator[Driver]:
    with Driver(*request.param, f"{gateway.url}/v1") as driver:
        yield driver


def done(outcome: Outcome) -> Any:
    assert not outcome.classes, outcome
    return outcome.value


def said(answer: dict[str, Any]) -> dict[str, Any]:
    """What two answers to one question share. The SDKs do not know reasoning; they keep its last piece."""
    choices = answer["choices"]
    for choice in choices:
        choice["message"] = {
            name: value
            for name, value in choice["message"].items()
            if name not in ("reasoning_content", "parsed", "refusal") and value not in (None, "", [])
        }
        for call in choice["message"].get("tool_calls", ()):
            call.pop("index", None)
            call["id"] = vendors(call["id"])
            call["function"].pop("parsed_arguments", None)
    names = ("index", "message", "finish_reason")
    return {
        "model": answer["model"],
        "usage": answer["usage"],
        "choices": [{name: choice[name] for name in names} for choice in choices],
    }


def same(sdk: Driver, gateway: LiveGateway, **more: Any) -> None:
    """Asked whole and as a stream that the SDK puts together: one answer, a credit for each."""
    key, body = gateway.key(5), BODY | more
    whole = done(sdk("whole", key=key, body=body))
    assert whole["choices"][0]["message"]["reasoning_content"] == REASONING
    summed = done(sdk("accumulated", key=key, body=body | {"stream_options": {"include_usage": True}}))
    assert said(summed) == said(whole)
    assert gateway.account(key).credits == 3


def test_the_sdk_accumulates_a_streamed_text_to_the_json_answer(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    same(sdk, gateway)


@pytest.mark.parametrize("text", ["", TEXT], ids=["call", "text-and-call"])
def test_the_sdk_accumulates_a_streamed_call_to_the_json_answer(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream, text: str
) -> None:
    upstream.always(Kimi(text, tools=CALLS[:1]))
    same(sdk, gateway, tools=tools(strict=True))  # the old helper of Python takes no others


@pytest.mark.parametrize("sdk", NODE, indirect=True)
def test_node_accumulates_two_calls_whose_arguments_interleave(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(Kimi("", tools=CALLS))
    same(sdk, gateway, tools=tools())


def test_chunks_carry_the_text_and_the_reasoning(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    chunks = done(sdk("chunks", key=gateway.key(), body=BODY))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == TEXT
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == REASONING


def test_a_web_search_is_one_answer_with_annotations(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    looks, found = Kimi("I look. ", tools=[(SEARCH, {"query": "news"})]), Kimi("It is new [1].")
    upstream.plan(*[looks, found] * 3)
    key, body = gateway.key(5), BODY | {"model": "kimi-search-silent"}  # which the old ones know
    message = done(sdk("whole", key=key, body=body))["choices"][0]["message"]
    cited = message["annotations"][0]["url_citation"]
    assert message["content"][cited["start_index"] : cited["end_index"]] == "[1]"
    chunks = done(sdk("chunks", key=key, body=body))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    (annotations,) = [delta["annotations"] for delta in deltas if delta.get("annotations")]
    assert annotations == message["annotations"]
    summed = done(sdk("accumulated", key=key, body=body))["choices"][0]
    assert (summed["message"]["content"], summed["finish_reason"]) == (message["content"], "stop")
    assert gateway.account(key).credits == 2


def test_models_are_listed(sdk: Driver, gateway: LiveGateway) -> None:
    listed = {model["id"] for model in done(sdk("models", key=gateway.key()))}
    assert {"kimi", "kimi-k2", "kimi-k3"} <= listed


REFUSALS = {
    "shape": (None, {"temperature": 9}, "BadRequestError", 400, "invalid_request"),
    "unknown model": (None, {"model": "no-such"}, "NotFoundError", 404, "model_not_found"),
    "upstream busy": (
        rate_limited("rate_limit_reached", retry_after=30), {}, "RateLimitError", 429, "rate_limit_exceeded",
    ),
    "upstream down": (HtmlError(), {}, "InternalServerError", 503, "service_unavailable"),
    "upstream's token": (
        Status(401, error("incorrect_api_key_error", "org-012")), {}, "InternalServerError", 503,
        "service_unavailable",
    ),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["whole", "chunks"])
@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_become_the_sdks_own_exceptions(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream, case: str, verb: str
) -> None:
    step, more, kind, status, code = REFUSALS[case]
    if step:
        upstream.always(step)
    key = gateway.key(5)
    outcome = sdk(verb, key=key, body=BODY | more)
    assert (outcome.classes[0], outcome.status, outcome.code) == (kind, status, code)
    assert "APIError" in outcome.classes
    assert "org-" not in outcome.message
    assert gateway.account(key).credits == 5


def test_a_key_that_may_not_is_refused_as_the_sdk_expects(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    wrong = sdk("whole", key="sk-kg-" + "x" * 38, body=BODY)
    assert (wrong.classes[0], wrong.code) == ("AuthenticationError", "invalid_api_key")
    poor = sdk("whole", key=gateway.key(0), body=BODY)
    assert (poor.classes[0], poor.code) == ("PermissionDeniedError", "insufficient_credits")
    spent = sdk("whole", key=gateway.limit(gateway.key(), Budget("tokens", "day", 10)), body=BODY)
    assert (spent.classes[0], spent.code) == ("PermissionDeniedError", "budget_exceeded")
    key = gateway.key(limits=Limits(day=1))
    done(sdk("whole", key=key, body=BODY))
    often = sdk("whole", key=key, body=BODY)
    assert (often.classes[0], often.code) == ("RateLimitError", "rate_limit_exceeded")


def test_an_error_in_mid_stream_is_an_api_error_after_the_content(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(ErrorEvent(4, inner=Kimi(reasoning="")))
    key = gateway.key(5)
    outcome = sdk("chunks", key=key, body=BODY)
    assert outcome.classes[0] == "APIError"
    text = "".join(
        choice["delta"].get("content") or "" for chunk in outcome.seen for choice in chunk["choices"]
    )
    assert text
    assert TEXT.startswith(text)
    assert gateway.account(key).credits == 5
