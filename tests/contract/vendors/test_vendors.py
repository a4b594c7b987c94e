"""One contract over every vendor's row, against an emulator with the vendor's own ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kimi_gateway.catalog.vendors import VENDORS
from support.api_gateway import Answered
from support.edges import EDGES, Case
from support.exchange import CHARGED, NOT_CHARGED, ask, ledger
from support.formats import FORMATS, MESSAGES, RESPONSES, Format
from support.live import HELLO, LiveGateway
from support.vendors import with_vendors
from upstream import ScriptedUpstream, Sse, Status, Step
from upstream import vendors as emulated
from upstream.vendors import (
    MODELS,
    REASONING,
    TEXT,
    WAYS,
    Chat,
    answering,
    chat_path,
    last,
    sent_to,
    token_of,
)

Json = dict[str, Any]
TOOL = {"type": "function", "function": {"name": "get.weather", "parameters": {"type": "object"}}}
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with with_vendors(up, tmp_path_factory.mktemp("vendors")) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def right(up: ScriptedUpstream) -> None:
    emulated.serve(up)
    up.requests.clear()


def vendor_of(model: str) -> str:
    return "glm" if model == "emohaa" else model.partition("/")[0]


def reasoned(model: str) -> bool:
    return model not in ("metaso/fast",)


def chat(gateway: LiveGateway, model: str, **more: Any) -> httpx.Response:
    return gateway.chat(gateway.key(), model=model, **more)


def test_the_emulator_knows_every_row_and_each_has_a_model_here() -> None:
    assert set(WAYS) == set(VENDORS) == {vendor_of(model) for model in MODELS.values()}


# Each row meets each format, mode and edge, though not each combination.
PAIRS = [
    (name, list(FORMATS)[(row + turn) % 3], (row + turn) % 2 == 0, list(EDGES)[(row + turn + turn // 3) % 3])
    for row, name in enumerate(MODELS)
    for turn in range(6)
]


@pytest.mark.parametrize(("name", "form", "stream", "edge"), PAIRS)
def test_every_row_answers_in_each_format_and_mode_on_each_edge(
    gateway: LiveGateway, up: ScriptedUpstream, name: str, form: str, stream: bool, edge: str
) -> None:
    model, format, key = MODELS[name], FORMATS[form], gateway.key()
    stream = stream and edge != "buffered"
    body = json.dumps(format.asked(stream=stream, model=model)).encode()
    headers = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
    answer: Answered = EDGES[edge](gateway, Case(200, "POST", format.path, body), headers)
    assert answer.status == 200, answer.body
    text = answer.body.decode()
    told = format.read(text, stream)
    assert (told.content, told.finishes, told.whole) == (TEXT, [format.stop], True)
    assert (f'"model":"{model}"' in text, REASONING in json_texts(text)) == (True, reasoned(model))
    assert ledger(gateway, key) == CHARGED
    (sent,) = sent_to(up, vendor_of(model))
    assert sent.body["stream_options"] == {"include_usage": True}
    (row,) = gateway.usage(key)
    assert row.input == 12


def json_texts(text: str) -> str:
    """The reasoning of an answer, joined over its pieces."""
    names = ("reasoning_content", "thinking", "text")
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("type") == "response.reasoning_text.delta" or "reasoning" in str(value.get("type")):
                found.extend(value[name] for name in ("delta",) if isinstance(value.get(name), str))
            found.extend(value[name] for name in names if isinstance(value.get(name), str))
            for member in value.values():
                walk(member)
        elif isinstance(value, list):
            for member in value:
                walk(member)

    for line in text.splitlines():
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            walk(json.loads(data))
    return "".join(found)


THINKS: list[tuple[str, Json, Json]] = [
    ("stepfun/step-5-preview", {"reasoning_effort": "max"}, {"reasoning_effort": "high"}),
    ("stepfun/step-5-preview", {"thinking": {"type": "disabled"}}, {"reasoning_effort": "low"}),
    ("qwen/qwen3.8-max", {"reasoning_effort": "high"}, {"enable_thinking": True}),
    (
        "qwen/qwen3.8-max",
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        {"enable_thinking": True, "thinking_budget": 2048},
    ),
    ("qwen/qwen3.8-max", {"reasoning_effort": "none"}, {"enable_thinking": False}),
    ("glm/glm-4.7-flash", {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
    ("glm/glm-5.3", {"reasoning_effort": "medium"}, {"reasoning_effort": "high"}),
    ("minimax/MiniMax-M3", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ("minimax/MiniMax-M3", {"reasoning_effort": "high"}, {"thinking": {"type": "adaptive"}}),
    ("minimax/MiniMax-M2.7", {"reasoning_effort": "high"}, {}),
    ("spark/4.0Ultra", {"reasoning_effort": "high"}, {}),
]


@pytest.mark.parametrize(("model", "asked", "sent"), THINKS)
def test_thinking_is_asked_for_in_the_vendors_own_way(
    gateway: LiveGateway, up: ScriptedUpstream, model: str, asked: Json, sent: Json
) -> None:
    answer = chat(gateway, model, **asked)
    assert answer.status_code == 200, answer.text
    names = ("thinking", "reasoning_effort", "enable_thinking", "thinking_budget")
    assert {name: value for name, value in last(up, vendor_of(model)).items() if name in names} == sent
    assert ("x-param-ignored" in answer.headers) == (not sent)


@pytest.mark.parametrize("model", MODELS.values())
def test_what_a_vendor_does_not_know_is_not_sent(
    gateway: LiveGateway, up: ScriptedUpstream, model: str
) -> None:
    """The emulator refuses unknown fields, choices, styles and messages as the vendors do."""
    schema = {"name": "a", "schema": {"type": "object", "title": "Find me"}}
    style = {"type": "json_schema", "json_schema": schema}
    more = {
        "max_completion_tokens": 500, "user": "u", "prompt_cache_key": "k", "tools": [TOOL],
        "tool_choice": "required", "response_format": style, "reasoning_effort": "high",
    }  # fmt: skip
    messages = [{"role": "developer", "content": "Be brief."}, *HELLO]
    answer = chat(gateway, model, messages=messages, **more)
    assert answer.status_code == 200, answer.text
    sent = last(up, vendor_of(model))
    limit = "max_completion_tokens" if model == "minimax/MiniMax-M3" else "max_tokens"
    assert sent[limit] == 500
    assert "Find me" in json.dumps(sent), "the schema reaches the model, in its field or in words"
    assert "prompt_cache_key" in answer.headers["x-param-ignored"]


def test_a_limit_above_the_vendors_is_lowered_and_named(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    answer = chat(gateway, "glm/glm-5.3", max_tokens=10**7)
    assert last(up, "glm")["max_tokens"] < 10**7
    assert answer.headers["x-param-ignored"] == "max_tokens"


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_pair_of_a_row_that_takes_no_pictures_is_told_so(gateway: LiveGateway, format: Format) -> None:
    content: Any = [{"type": "image_url", "image_url": {"url": PICTURE}}]
    if format is MESSAGES:
        source = {"type": "base64", "media_type": "image/png", "data": PICTURE.partition(",")[2]}
        content = [{"type": "image", "source": source}]
    if format is RESPONSES:
        content = [{"type": "input_image", "image_url": PICTURE}]
    body = format.asked(model="glm/glm-5.3")
    body["input" if format is RESPONSES else "messages"] = [{"role": "user", "content": content}]
    with gateway.client(gateway.key()) as client:
        refused = client.post(format.path, json=body)
        assert refused.status_code == 400
        assert "glm/glm-5.3 takes no" in refused.text
        taken = client.post(format.path, json={**body, "model": "qwen/qwen3.8-max"})
    assert taken.status_code == 200, taken.text


def error(status: int, message: str, **more: Any) -> Step:
    return Status(status, {"error": {"message": message, **more}})


def native(code: int, message: str) -> Step:
    return Status(200, {"base_resp": {"status_code": code, "status_msg": message}})


UNAVAILABLE, LIMITED = (503, "service_unavailable"), (429, "rate_limit_exceeded")
INVALID = (400, "invalid_request")
FILTERED, TOO_LONG = (400, "content_filter"), (400, "context_length_exceeded")
SPARK_EVENT = {"code": 10007, "message": "traffic", "sid": "cha0"}
MINIMAX_EVENT = {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}
ERRORS: dict[str, tuple[str, Step, tuple[int, str], str]] = {
    "stepfun 401": ("stepfun", error(401, "no", type="invalid_api_key"), UNAVAILABLE, "authentication"),
    "stepfun 402": ("stepfun", error(402, "balance", type="x"), UNAVAILABLE, "quota"),
    "stepfun 429": ("stepfun", error(429, "slow", type="rate"), LIMITED, "rate"),
    "stepfun 451": ("stepfun", error(451, "not allowed", type="x"), FILTERED, "content_filter"),
    "stepfun 503": ("stepfun", error(503, "busy", type="x"), LIMITED, "overload"),
    "qwen arrears": ("qwen", error(400, "owes", code="Arrearage"), UNAVAILABLE, "quota"),
    "qwen throttled": ("qwen", error(429, "slow", code="Throttling"), LIMITED, "rate"),
    "qwen filtered": ("qwen", error(400, "data", code="data_inspection_failed"), FILTERED, "content_filter"),
    "glm 1113 at 429": ("glm", error(429, "balance", code="1113"), UNAVAILABLE, "quota"),
    "glm 1302": ("glm", error(429, "rate", code="1302"), LIMITED, "rate"),
    "glm 1305": ("glm", error(429, "load", code="1305"), LIMITED, "overload"),
    "glm 1211": ("glm", error(400, "model", code="1211"), UNAVAILABLE, "model"),
    "glm 1261": ("glm", error(400, "long", code="1261"), TOO_LONG, "context"),
    "glm 1301": ("glm", error(400, "content", code="1301"), FILTERED, "content_filter"),
    "glm 1001": ("glm", error(401, "auth", code="1001"), UNAVAILABLE, "authentication"),
    "minimax 401": ("minimax", error(401, "no", type="authorized_error"), UNAVAILABLE, "authentication"),
    "minimax 1008 at 200": ("minimax", native(1008, "balance"), UNAVAILABLE, "quota"),
    "minimax 1002 at 200": ("minimax", native(1002, "rate"), LIMITED, "rate"),
    "minimax in the stream": ("minimax", Sse([MINIMAX_EVENT]), UNAVAILABLE, "quota"),
    "spark in the stream": ("spark", Sse([SPARK_EVENT]), UNAVAILABLE, "server"),
    "spark at 200": ("spark", Status(200, {"code": 11200, "message": "AppIdNoAuth", "sid": "c"}), UNAVAILABLE,
                     "permission"),
    "metaso 400": ("metaso", error(400, "bad field"), INVALID, "invalid"),
    "metaso page": ("metaso", Status(502, "<html>nginx</html>"), UNAVAILABLE, "server"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_meaning_of_the_row_and_costs_nothing(
    gateway: LiveGateway, up: ScriptedUpstream, name: str
) -> None:
    vendor, step, (status, code), cause = ERRORS[name]
    answering(up, vendor, step)
    at = list(ERRORS).index(name)
    format, stream = list(FORMATS.values())[at % 3], at % 2 == 0
    seen = ask(gateway, stream, format=format, model=MODELS[vendor])
    assert (seen.seen.status, seen.ledger) == (status, NOT_CHARGED), seen.seen.text
    found = seen.seen.error
    assert found is not None
    if format.codes:
        assert found["code"] == code
    if status == 503:
        assert vendor in found["message"], "the text names the vendor, not Kimi"
    assert gateway.lines("attempt_failed")[-1]["cause"] == cause


def test_a_token_without_balance_is_replaced_by_another_of_the_vendor(
    up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    two = {"stepfun": (token_of("stepfun", "ai"), f"com={token_of('stepfun', 'com')}")}
    with with_vendors(up, tmp_path_factory.mktemp("two"), vendor_tokens=two) as gateway:
        up.at(chat_path("stepfun", "ai"), error(402, "empty"))
        key = gateway.key()
        for turn in range(6):
            messages = [{"role": "user", "content": f"conversation {turn}"}]
            assert gateway.chat(key, model="stepfun/step-3.7-flash", messages=messages).status_code == 200
        refused = [each for each in sent_to(up, "stepfun") if "/ai/" in each.path]
        assert len(refused) == 1, "it is known to be empty after that"
        assert gateway.lines("token_out")[-1]["cause"] == "quota"


def called(gateway: LiveGateway, model: str, key: str, result: Json) -> httpx.Response:
    """The next question of a client that sends calls back without their reasoning, as most do."""
    message = {name: result[name] for name in ("role", "content", "tool_calls")}
    told = [{"role": "tool", "tool_call_id": call["id"], "content": "20 C"} for call in message["tool_calls"]]
    return gateway.chat(key, model=model, tools=[TOOL], messages=[*HELLO, message, *told])


@pytest.mark.parametrize("model", ["stepfun/step-5-preview", "glm/glm-5.3", "minimax/MiniMax-M3"])
def test_reasoning_before_calls_goes_back_in_the_vendors_field(
    gateway: LiveGateway, up: ScriptedUpstream, model: str
) -> None:
    vendor, key = vendor_of(model), gateway.key()
    for base in WAYS[vendor].bases:
        tokens = frozenset((token_of(vendor, base),))
        up.at(chat_path(vendor, base), Chat(WAYS[vendor], tokens, [("get_weather", {"city": "Oslo"})]))
    first = gateway.chat(key, model=model, tools=[TOOL])
    message = first.json()["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] in ("get.weather", "get_weather")
    emulated.serve(up)
    assert called(gateway, model, key, message).status_code == 200
    earlier = last(up, vendor)["messages"][1]
    expected: Json = {"reasoning_content": REASONING}
    if vendor == "minimax":
        expected = {"reasoning_details": [{"type": "reasoning.text", "text": REASONING}]}
    assert {name: earlier[name] for name in expected} == expected


def test_tags_that_come_unasked_stay_in_the_content(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    """Only a row with think tags has them cut out; elsewhere they may be the answer."""
    tokens = frozenset((token_of("qwen", "intl"),))
    up.at(chat_path("qwen", "intl"), Chat(WAYS["qwen"], tokens, text="<think>no</think> yes"))
    message = chat(gateway, MODELS["qwen"]).json()["choices"][0]["message"]
    assert message["content"] == "<think>no</think> yes"


def test_the_list_has_the_models_of_every_vendor(gateway: LiveGateway) -> None:
    with gateway.client(gateway.key()) as client:
        entries = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
        one = client.get("/v1/models/glm/glm-5.3").json()
    for model in MODELS.values():
        assert model == "emohaa" or model in entries
    assert {"glm/emohaa", "kimi-k3", "spark/4.0Ultra"} <= entries.keys()
    assert (one["id"], one["context_length"], one["owned_by"]) == ("glm/glm-5.3", 1_000_000, "glm")


def test_a_model_that_nobody_has_is_not_found(gateway: LiveGateway) -> None:
    for model in ("spark/unknown", "nobody/model", "qwen/"):
        answer = chat(gateway, model)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
