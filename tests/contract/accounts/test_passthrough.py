"""Pass-through: callers with Kimi tokens of their own, and what a stranger can do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.accounts.guests import COUNTED, TokenWindows
from kimi_gateway.accounts.values import Limits
from kimi_gateway.edge.router import Access
from kimi_gateway.providers.tokens.local_health import MOST, LocalHealth
from kimi_gateway.providers.tokens.outages import Outage
from support.formats import FORMATS, Format
from support.inprocess import NOW, InProcess, Sent, Told, kimi, streamed, told
from upstream import chat_events

ONE, TWO, THREE = (f"sk-own{'x' * 40}{number}" for number in (1, 2, 3))
DEAD = f"sk-dead{'x' * 40}"
REFUSED = told({"error": {"type": "incorrect_api_key_error", "message": "Incorrect API key"}}, 401)
WEB = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJ0eXAiOiJyZWZyZXNoIn0.c2ln"


def secret(sent: Sent) -> str:
    return sent.headers["authorization"].removeprefix("Bearer ")


def only_own(sent: Sent) -> Told:
    return kimi(sent) if secret(sent).startswith("sk-own") else REFUSED


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess(passthrough=True, moonshot_api_key=()) as desk:
        desk.client.answer = only_own
        yield desk


def chat(desk: InProcess, tokens: str, **more: Any) -> Any:
    return desk.chat(tokens, {"model": "kimi-k3", **more})


def users(desk: InProcess) -> list[str]:
    return [secret(sent) for sent in desk.client.chats]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_token_of_the_caller_is_used_in_every_format(desk: InProcess, form: Format, stream: bool) -> None:
    for headers in ([("authorization", f"bearer  {ONE} ")], [("x-api-key", ONE)]):
        answer = desk.call("POST", form.path, form.asked(stream=stream), None, *headers)
        assert (answer.status, form.read(answer.body.decode(), stream).whole) == (200, True)
        assert "x-credits-remaining" not in answer.headers
        assert answer.headers["x-ratelimit-limit"] == "20"
    assert users(desk) == [ONE, ONE]


def test_it_is_off_unless_the_operator_wants_it() -> None:
    with InProcess() as desk:
        answer = chat(desk, ONE)
        assert answer.status == 401
        assert "sk-kg-" in answer.json["error"]["message"]
        assert not desk.client.sent


def test_a_key_of_the_gateway_always_wins() -> None:
    with InProcess(passthrough=True) as desk:
        key = desk.key(5)
        for headers in ([("x-api-key", ONE)], []):
            assert desk.chat(key, {}, *headers).status == 200
        body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
        more = (("authorization", f"Bearer {ONE}"), ("x-api-key", key))
        assert desk.call("POST", "/v1/chat/completions", body, None, *more).status == 200
        assert set(users(desk)) == {"sk-upstream-1"}
        assert desk.account(key).credits == 2
        wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
        assert desk.chat(wrong, {}, ("x-api-key", ONE)).status == 401


def test_a_conversation_stays_with_one_token(desk: InProcess) -> None:
    tokens = f"{ONE},{TWO},{THREE}"
    for number in range(12):
        said = [{"role": "user", "content": f"Question {number}"}]
        chat(desk, tokens, messages=said)
        said += [{"role": "assistant", "content": "Yes"}, {"role": "user", "content": "And?"}]
        chat(desk, tokens, messages=said)
    pairs = list(zip(users(desk)[::2], users(desk)[1::2], strict=True))
    assert all(first == second for first, second in pairs)
    assert {first for first, _ in pairs} == {ONE, TWO, THREE}


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_token_is_tried_before_the_first_content(desk: InProcess, stream: bool) -> None:
    chat(desk, f"{ONE},{TWO}")
    (first,) = users(desk)
    refusal = {"error": {"type": "rate_limit_reached_error", "message": "slow down"}}
    desk.client.answer = lambda sent: (
        told(refusal, 429) if secret(sent) == first and sent.body else only_own(sent)
    )
    desk.client.sent.clear()
    assert chat(desk, f"{ONE},{TWO}", stream=stream).status == 200
    assert set(users(desk)) == {ONE, TWO}
    desk.client.sent.clear()
    assert chat(desk, f"{ONE},{TWO}").status == 200
    assert first not in users(desk), "its cool-down is remembered"


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_an_invalid_token_is_named_by_its_place(desk: InProcess, form: Format) -> None:
    answer = desk.call("POST", form.path, form.asked(), f"{DEAD}")
    assert answer.status == 401
    error = form.error(answer.json)
    assert "token 1 " in error["message"]
    assert (error["type"], DEAD in answer.body.decode()) == (form.types[401], False)
    both = desk.call("POST", form.path, form.asked(), f"{DEAD},{DEAD}2")
    assert "tokens 1, 2 " in form.error(both.json)["message"]
    assert not desk.client.chats
    assert desk.call("POST", form.path, form.asked(), f"{DEAD},{ONE}").status == 200
    assert users(desk) == [ONE]


def test_a_token_that_is_revoked_meanwhile_is_named_too(desk: InProcess) -> None:
    assert chat(desk, ONE).status == 200
    desk.client.answer = lambda sent: REFUSED
    for _ in range(3):
        answer = chat(desk, f" ,{ONE}")
        assert (answer.status, "token 1 " in answer.json["error"]["message"]) == (401, True)
    assert len(desk.client.sent) == 3, "one check, two chats, and then it is known"


WRONG = {
    "": "no token",
    "garbage": "Token 1 cannot",
    f"{ONE},garbage": "Token 2 cannot",
    f"{ONE},,{WEB}": "Token 2 is a login token of kimi.com",
    WEB: "Token 1 is a login token of kimi.com",
    f"{ONE},sk-kg-abc": "Token 2 is a key of this gateway",
    f"{ONE},sk-a b": "Token 2 cannot",
    f"{ONE},sk-a\x7f": "Token 2 cannot",
    f"{ONE},ключ": "Token 2 cannot",
    "sk-" + "x" * 5_000: "Token 1 cannot",
    ",".join(f"{ONE}{number}" for number in range(21)): "21 tokens; at most 20",
    "," * 9_000: "no token",
}


@pytest.mark.parametrize("tokens", WRONG, ids=[f"wrong {number}" for number in range(len(WRONG))])
def test_what_cannot_be_a_token_costs_no_call(desk: InProcess, tokens: str) -> None:
    body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
    answer = desk.call("POST", "/v1/chat/completions", body, None, ("authorization", f"Bearer {tokens}"))
    assert answer.status == 401
    assert WRONG[tokens] in answer.json["error"]["message"]
    assert not desk.client.sent


def test_garbage_in_the_form_of_tokens_is_bounded_by_address_and_in_all(desk: InProcess) -> None:
    said = [desk.chat(f"sk-{number:040}", {}).status for number in range(70)]
    assert (said[:60], set(said[60:])) == ([401] * 60, {429})
    assert chat(desk, ONE).status == 429, "the address has asked too often"
    desk.now += 61
    assert chat(desk, ONE).status == 200
    more = 0
    for number in range(400):
        headers = (("authorization", f"Bearer sk-more{number:040}"),)
        client = f"198.51.{number // 50}.{number % 50}"
        more += desk.call("POST", "/v1/chat/completions", {}, None, *headers, client=client).status == 401
    assert more <= 300
    assert chat(desk, ONE).status == 200, "a token that is known is not displaced"
    assert not [used for used in users(desk) if used != ONE]


def test_a_good_token_opens_no_door_for_garbage(desk: InProcess) -> None:
    """Unknown tokens beside a good one are checked within the same bounds, and never sent a chat."""
    for number in range(10):
        garbage = ",".join(f"sk-garbage{number}-{at:030}" for at in range(19))
        assert chat(desk, f"{garbage},{ONE}").status == 200
    assert set(users(desk)) == {ONE}
    assert len(desk.client.sent) - 10 <= 61


def test_the_windows_count_each_token(desk: InProcess) -> None:
    said = [chat(desk, ONE) for _ in range(21)]
    assert [answer.status for answer in said] == [200] * 20 + [429]
    refused = said[-1]
    assert refused.headers["retry-after"] == "30"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert "own Kimi tokens" in refused.json["error"]["message"]
    both = [chat(desk, f"{ONE},{TWO}").status for _ in range(21)]
    assert both == [200] * 20 + [429]
    assert users(desk).count(ONE) == users(desk).count(TWO) == 20
    desk.now += 30
    assert chat(desk, ONE).status == 200


def test_a_request_that_moves_to_another_token_is_counted_there(desk: InProcess) -> None:
    """The limits of both hold whichever of them the conversation prefers."""
    with InProcess(passthrough=True, passthrough_limits=(3, None, None)) as small:
        said = [small.chat(f"{ONE},{TWO}", {}).status for _ in range(7)]
        assert said == [200] * 6 + [429]
        assert sorted(users(small)) == [ONE] * 3 + [TWO] * 3


def test_windows_can_be_switched_off() -> None:
    with InProcess(passthrough=True, passthrough_limits=(None, None, None)) as desk:
        answers = [chat(desk, ONE) for _ in range(30)]
        assert {answer.status for answer in answers} == {200}
        assert "x-ratelimit-limit" not in answers[0].headers


def test_the_memory_of_windows_and_cool_downs_is_bounded() -> None:
    windows = TokenWindows(Limits(1))
    for number in range(COUNTED + 5):
        windows.count(f"own_{number}", NOW)
    assert windows.has_room("own_4", NOW)
    assert not windows.has_room("own_5", NOW)
    health = LocalHealth(lambda: NOW)
    for number in range(MOST + 5):
        assert health.put(Outage(f"own_{number}", "", "rate", NOW + 60))
    assert not health.known("own_4", "")
    assert health.known("own_5", "")


# The routes that a guest may use, besides the open ones; all others belong to accounts.
FOR_GUESTS = re.compile(r"/v1/(chat/|messages|responses|conversations/|models|tokenizers/)")


def test_what_belongs_to_accounts_is_refused_clearly_on_every_route() -> None:
    """Also on the operator's own routes, and no route fails."""
    with InProcess(passthrough=True, moonshot_api_key=(), admin=True) as desk:
        for route in desk.router.table:
            path = re.sub(r"\{\w+\+?\}", "x1", route.path)
            desk.now += 1
            answer = desk.call(route.method, path, b"" if route.method in ("GET", "DELETE") else b"{}", ONE)
            if route.access in (Access.OPEN, Access.PAGE) or FOR_GUESTS.match(path):
                assert answer.status in (200, 400, 404), path
            else:
                assert (answer.status, answer.json["error"]["code"]) == (403, "permission_denied"), path
                assert "sk-kg-" in answer.json["error"]["message"]


def test_models_and_counts_cost_no_call_of_the_operator(desk: InProcess) -> None:
    question = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
    listed = desk.call("GET", "/v1/models", b"", ONE)
    assert "kimi-k3" in [row["id"] for row in listed.json["data"]]
    for path in ("/v1/messages/count_tokens", "/v1/tokenizers/estimate-token-count"):
        assert desk.call("POST", path, question, ONE).status == 200
    asked = {"model": "kimi-k3", "input": "x"}
    assert desk.call("POST", "/v1/responses/input_tokens", asked, ONE).status == 200
    assert chat(desk, ONE, model="unheard-of").status == 404
    assert [sent.path for sent in desk.client.sent] == ["/v1/users/me/balance"], "the check of the token"


FAILURES = {
    "quota": (429, "exceeded_current_quota_error", 403, "insufficient_credits"),
    "permission": (403, "permission_denied_error", 403, "permission_denied"),
    "model": (404, "resource_not_found_error", 404, "model_not_found"),
    "rate": (429, "rate_limit_reached_error", 429, "rate_limit_exceeded"),
    "server": (500, "server_error", 503, "service_unavailable"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_of_the_callers_account_are_reported_as_its_own(desk: InProcess, name: str) -> None:
    status, type, shown, code = FAILURES[name]
    assert chat(desk, ONE).status == 200
    error = told({"error": {"type": type, "message": f"No, {ONE}!"}}, status)
    desk.client.answer = lambda sent: error if sent.body else only_own(sent)
    answer = chat(desk, ONE)
    assert (answer.status, answer.json["error"]["code"]) == (shown, code)
    assert "operator" not in answer.json["error"]["message"]
    assert ONE not in answer.body.decode()


def test_while_kimi_is_down_a_token_cannot_be_checked(desk: InProcess) -> None:
    desk.client.answer = lambda sent: told({}, 500)
    answer = chat(desk, ONE)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    desk.client.answer = only_own
    assert chat(desk, ONE).status == 200


def test_what_one_caller_has_kept_no_other_one_reaches(desk: InProcess) -> None:
    """Callers with tokens of their own, and keys of the gateway."""
    first = desk.call("POST", "/v1/responses", {"model": "kimi-k3", "input": "My secret"}, ONE).json["id"]
    more = {"model": "kimi-k3", "input": "What is it?", "previous_response_id": first}
    assert desk.call("POST", "/v1/responses", more, f"{ONE},{TWO}").status == 200
    for other in (TWO, f"{TWO},{ONE}", desk.key(None)):
        assert desk.call("POST", "/v1/responses", more, other).status == 400
        for method in ("GET", "DELETE"):
            assert desk.call(method, f"/v1/responses/{first}", b"", other).status == 404
    assert desk.call("GET", f"/v1/responses/{first}", b"", ONE).json["id"] == first
    assert desk.call("DELETE", f"/v1/responses/{first}", b"", ONE).status == 200
    assert desk.call("POST", "/v1/responses", more, ONE).status == 400


def test_a_conversation_of_a_guest_goes_on_with_any_order_of_the_other_tokens(desk: InProcess) -> None:
    id = chat(desk, f"{ONE},{TWO}", conversation_id="none").json["id"]
    assert chat(desk, f"{ONE},{THREE},{TWO}", conversation_id=id).json["id"] == id
    assert chat(desk, f"{TWO},{ONE}", conversation_id=id).json["id"] != id
    assert desk.call("DELETE", f"/v1/conversations/{id}", b"", TWO).status == 404
    assert desk.call("DELETE", f"/v1/conversations/{id}", b"", ONE).status == 200


def test_a_model_of_another_vendor_needs_a_key() -> None:
    with InProcess(passthrough=True, vendor_tokens={"qwen": ("sk-vendor-1",)}) as desk:
        assert chat(desk, ONE, model="qwen/qwen3.8-max").status == 404
        assert "sk-vendor-1" not in [secret(sent) for sent in desk.client.sent]


def test_a_search_runs_with_the_callers_token(desk: InProcess) -> None:
    call = [("gateway_web_search", {"query": "news"})]
    found = {"search_results": [{"url": "https://a.example/", "title": "A", "snippet": "S"}]}

    def answer(sent: Sent) -> Told:
        if sent.path == "/v1/tools/search":
            return told(found)
        asked = sent.body and len(sent.body["messages"]) == 1
        return streamed(*chat_events(tools=call)) if asked else only_own(sent)

    desk.client.answer = answer
    assert "A" in json.dumps(chat(desk, ONE, model="kimi-search").json)
    assert {secret(sent) for sent in desk.client.sent} == {ONE}
