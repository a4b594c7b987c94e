"""Requests with an `Idempotency-Key`: the same answer again, charged once, in each format, on each edge."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Limits
from kimi_gateway.flow import idempotency
from support import sdks
from support.edges import EDGES, Case
from support.fault_table import WHOLE
from support.formats import CHAT, EACH, MESSAGES, MODES, RESPONSES, Format
from support.inprocess import InProcess, streamed, told
from support.live import LiveGateway
from upstream import Gated, Kimi, ScriptedUpstream, chat_events, error

NAME = ("idempotency-key", "7d9f3a5e-one")
OTHER = ("idempotency-key", "7d9f3a5e-two")
REPLAYED = "idempotent-replayed"


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as up:
        yield up


@pytest.fixture(scope="module")
def gateway(up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path_factory.mktemp("idempotency"), up.url, lease=30) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def forgotten(up: ScriptedUpstream) -> None:
    up.forget()
    up.requests.clear()


def ask(
    desk: InProcess, key: str, format: Format, *more: tuple[str, str], path: str = "", **body: Any
) -> Any:
    return desk.call("POST", path or format.path, format.asked(**body), key, *more)


@pytest.mark.parametrize("edge", EDGES)
@MODES
@EACH
def test_a_repeated_request_gets_the_same_bytes_and_is_charged_once(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format, stream: bool, edge: str
) -> None:
    up.always(WHOLE)
    key, name = gateway.key(), ("idempotency-key", str(uuid.uuid4()))
    case = Case(200, "POST", format.path, json.dumps(format.asked(stream=stream, temperature=1)).encode())
    headers = [("authorization", f"Bearer {key}"), ("content-type", "application/json"), name]
    ids = [("x-request-id", "first"), ("x-request-id", "again")]
    first, again = (EDGES[edge](gateway, case, [*headers, id]) for id in ids)
    assert (first.status, again.status) == (200, 200)
    assert first.body == again.body
    assert len(up.chats) == 1
    account = gateway.account(key)
    assert (account.consumed, account.reserved) == (1, 0)
    told = dict(again.headers)
    assert told[REPLAYED] == "true"
    assert REPLAYED not in dict(first.headers)
    for same in ("content-type", "x-param-ignored", "cache-control"):
        assert told.get(same) == dict(first.headers).get(same)
    assert told["x-request-id"] == "again"
    assert "x-credits-remaining" not in told
    assert ("content-length" in told) is (not stream and edge == "asgi")
    gateway.nothing_left(key)


@EACH
def test_another_request_under_the_same_name_is_refused_in_the_words_of_its_path(
    desk: InProcess, format: Format
) -> None:
    key = desk.key()
    assert ask(desk, key, format, NAME).status == 200
    refused = ask(desk, key, format, NAME, question="Another question")
    assert refused.status == 422
    told = format.error(refused.json) if format is MESSAGES else refused.json["error"]
    assert "used for another request" in told["message"]
    assert told["type"] == "invalid_request_error"
    if format.codes:
        assert (told["code"], told["param"]) == ("idempotency_key_reused", "idempotency-key")
    assert refused.headers["x-should-retry"] == "false"
    assert ask(desk, key, format, OTHER, question="Another question").status == 200
    assert desk.account(key).consumed == 2


def test_a_name_belongs_to_an_account_and_a_route(desk: InProcess) -> None:
    key, stranger = desk.key(), desk.key()
    assert ask(desk, key, CHAT, NAME).status == 200
    assert REPLAYED not in ask(desk, stranger, CHAT, NAME).headers
    assert REPLAYED not in ask(desk, key, MESSAGES, NAME).headers
    assert REPLAYED not in ask(desk, key, RESPONSES, NAME).headers
    assert REPLAYED in ask(desk, key, CHAT, NAME, path="/api/v1/chat/completions/").headers
    assert REPLAYED in ask(desk, key, MESSAGES, NAME, path="/anthropic/v1/messages").headers
    assert (desk.account(key).consumed, desk.account(stranger).consumed) == (3, 1)


def test_the_order_of_members_and_blanks_do_not_make_another_request(desk: InProcess) -> None:
    key, body = desk.key(), {"model": "kimi-k3", **CHAT.body("Hello")}
    assert desk.chat(key, json.dumps(body).encode(), NAME).status == 200
    turned = json.dumps(dict(reversed(body.items())), indent=2).encode()
    assert REPLAYED in desk.chat(key, turned, NAME).headers
    twice = json.dumps(body)[:-1].encode() + b', "model": "kimi-k3"}'
    assert desk.chat(key, twice, NAME).status == 422  # it is not the same, and would be refused anyway


WRONG = [("",), ("a b",), ("é",), ("x" * 256,), ("a\tb",), ("one", "two")]


@pytest.mark.parametrize("values", WRONG, ids=range(len(WRONG)))
@EACH
def test_a_name_has_a_form(desk: InProcess, format: Format, values: tuple[str, ...]) -> None:
    refused = ask(desk, desk.key(), format, *[("idempotency-key", value) for value in values])
    assert refused.status == 400
    assert "255 visible ASCII characters" in format.error(refused.json)["message"]
    assert desk.client.sent == []


def test_the_longest_name_and_every_character_of_its_form(desk: InProcess) -> None:
    name = ("idempotency-key", "".join(map(chr, range(0x21, 0x7F))) + "x" * 161)
    key = desk.key()
    assert ask(desk, key, CHAT, name).status == 200
    assert REPLAYED in ask(desk, key, CHAT, name).headers


FAILURES = {
    "refused": lambda sent: told(error("invalid_request_error", "no"), 400),
    "cut": lambda sent: streamed(*chat_events(model="kimi-k3")[:2], done=False),
    "an error behind content": lambda sent: streamed(
        *chat_events(model="kimi-k3")[:2], error("server_error", "no"), done=False
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
@MODES
@EACH
def test_a_request_that_failed_runs_anew(desk: InProcess, format: Format, stream: bool, failure: str) -> None:
    key, good = desk.key(), desk.client.answer
    desk.client.answer = FAILURES[failure]
    ask(desk, key, format, NAME, stream=stream)
    assert desk.account(key).consumed == 0
    desk.client.answer = good
    again = ask(desk, key, format, NAME, stream=stream)
    assert again.status == 200
    assert REPLAYED not in again.headers
    assert format.read(again.body.decode(), stream).whole
    assert REPLAYED in ask(desk, key, format, NAME, stream=stream).headers
    assert desk.account(key).consumed == 1


def test_a_refused_body_frees_its_name(desk: InProcess) -> None:
    key = desk.key()
    assert desk.chat(key, {"temperature": "warm"}, NAME).status == 400
    assert desk.chat(key, {}, NAME).status == 200


@MODES
@EACH
def test_a_request_that_runs_is_not_run_twice_and_an_abandoned_one_is(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format, stream: bool
) -> None:
    gated = Gated(WHOLE)
    up.plan(gated)
    up.always(WHOLE)
    key, name = gateway.key(), str(uuid.uuid4())
    with gateway.client(key, {"idempotency-key": name}) as client:
        body = json.dumps(format.asked(stream=stream)).encode()
        head = f"POST {format.path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
        head += f"idempotency-key: {name}\r\ncontent-length: {len(body)}\r\n\r\n"
        first = socket.create_connection(("127.0.0.1", gateway.port))
        first.sendall(head.encode() + body)
        up.until(lambda: up.chats)
        busy = client.post(format.path, json=format.asked(stream=stream))
        assert busy.status_code == 409
        assert "still running" in format.error(busy.json())["message"]
        assert int(busy.headers["retry-after"]) > 0
        assert "x-should-retry" not in busy.headers
        assert client.post(format.path, json=format.asked("Other", stream=stream)).status_code == 422
        first.close()
        gateway.nothing_left(key)
        gateway.until(lambda: not gateway.app.running.gateway.background)  # type: ignore[union-attr]
        again = client.post(format.path, json=format.asked(stream=stream))
        assert again.status_code == 200
        assert REPLAYED not in again.headers
        assert len(up.chats) == 2
        assert REPLAYED in client.post(format.path, json=format.asked(stream=stream)).headers


@EACH
def test_an_answer_above_the_bound_is_passed_on_and_not_kept(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format
) -> None:
    stream = format is not CHAT
    up.always(Kimi("x" * (idempotency.LARGEST + 1), pieces=20))
    key, name = gateway.key(), str(uuid.uuid4())
    with gateway.client(key, {"idempotency-key": name}) as client:
        first = client.post(format.path, json=format.asked(stream=stream))
        assert len(format.read(first.text, stream).content) == idempotency.LARGEST + 1
        again = client.post(format.path, json=format.asked(stream=stream))
    assert again.status_code == 409
    assert "larger than 1 MiB" in format.error(again.json())["message"]
    assert again.headers["x-should-retry"] == "false"
    assert len(up.chats) == 1
    assert gateway.account(key).consumed == 1


def test_nothing_is_kept_where_no_conversation_is(tmp_path: Path) -> None:
    with InProcess(keep_conversations=False) as desk:
        key = desk.key()
        assert ask(desk, key, CHAT, NAME).status == 200
        again = ask(desk, key, CHAT, NAME)
        assert (again.status, again.json["error"]["code"]) == (409, "conflict")
        assert desk.account(key).consumed == 1


def test_an_answer_ends_after_a_day(desk: InProcess) -> None:
    key = desk.key()
    ask(desk, key, CHAT, NAME)
    desk.now += idempotency.KEPT - 1
    assert REPLAYED in ask(desk, key, CHAT, NAME).headers
    desk.now += 1
    assert REPLAYED not in ask(desk, key, CHAT, NAME).headers


@EACH
def test_the_last_credit_and_a_full_window_do_not_withhold_the_answer(
    desk: InProcess, format: Format
) -> None:
    for key in (desk.key(credits=1), desk.key(limits=Limits(minute=1))):
        assert ask(desk, key, format, NAME).status == 200
        assert ask(desk, key, format).status in (403, 429)
        assert REPLAYED in ask(desk, key, format, NAME).headers
        assert ask(desk, key, format, OTHER).status in (403, 429)
        assert ask(desk, key, format, NAME, question="Other").status == 422


def test_a_key_that_was_revoked_elsewhere_gets_nothing(desk: InProcess) -> None:
    key = desk.key()
    ask(desk, key, CHAT, NAME)
    desk.run(desk.store.update_key(keys.digest(key), lambda old: replace(old, suspended=True), int(desk.now)))
    assert ask(desk, key, CHAT, NAME).status == 401


def test_repeated_requests_are_bounded_and_cost_no_window(desk: InProcess) -> None:
    key = desk.key(limits=Limits(minute=5))
    statuses = [ask(desk, key, CHAT, NAME).status for _ in range(80)]
    assert statuses.count(200) == 61  # the first, and the bucket of free calls
    assert set(statuses) == {200, 429}
    assert ask(desk, key, CHAT).headers["x-ratelimit-remaining"] == "3"


def test_a_request_without_the_header_costs_the_store_nothing_more(desk: InProcess) -> None:
    def refuse() -> Any:
        raise AssertionError

    desk.running.gateway.answers = refuse
    assert ask(desk, desk.key(), CHAT).status == 200


def test_the_lease_of_a_dead_process_frees_the_name(tmp_path: Path) -> None:
    """The first process never says how its request ended."""
    with InProcess(lease=60) as desk:
        key = desk.key()
        gateway = desk.running.gateway
        real = gateway.answers()

        class Dead:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            async def keep_answer(self, *given: Any) -> bool:
                return True

        gateway.answers = Dead  # type: ignore[assignment]
        assert ask(desk, key, CHAT, NAME).status == 200
        desk.now += 59
        assert ask(desk, key, CHAT, NAME).status == 409
        desk.now += 1
        gateway.answers = lambda: real
        assert ask(desk, key, CHAT, NAME).status == 200
        assert REPLAYED in ask(desk, key, CHAT, NAME).headers


def test_the_sdk_meets_a_running_request_and_then_gets_its_answer(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    gated = Gated(WHOLE)
    up.plan(gated)
    key, headers = gateway.key(), {"Idempotency-Key": str(uuid.uuid4())}
    question: Any = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
    with sdks.openai.OpenAI(api_key=key, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        found: list[Any] = []

        def ask() -> None:
            found.append(client.chat.completions.create(**question, extra_headers=headers))

        thread = threading.Thread(target=ask)
        thread.start()
        up.until(lambda: up.chats)
        with pytest.raises(sdks.openai.ConflictError, match="still running"):
            ask()
        gated.let(100)
        thread.join()
        ask()
        with pytest.raises(sdks.openai.UnprocessableEntityError, match="another request"):
            client.chat.completions.create(**question, seed=1, extra_headers=headers)
    one, two = found
    assert one == two
    assert len(up.chats) == 1
    assert gateway.account(key).consumed == 1
