"""Other models that answer when the one that was asked for fails: each fault of the sixteen in the first
link, on sockets; the rules of a chain and its books, in process.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget
from kimi_gateway.catalog.catalog import CatalogFault, load
from kimi_gateway.net.http import ConnectFailed
from support.exchange import CHARGED, NOT_CHARGED, ask
from support.formats import FORMATS
from support.inprocess import InProcess, Sent, Told, kimi, streamed, told
from support.live import LiveGateway
from upstream import (
    Cut,
    Delay,
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
)  # fmt: skip

TEXT = "".join(f"piece {number:03} " for number in range(58))
CHUNKS = chat_events(TEXT, pieces=58)
SIXTY, OTHER = Sse(CHUNKS), "The other model answers."
FORTY = length(map(frame, CHUNKS[:40]))
OWN, FELL, BEGUN, REFUSED = "own", "fell", "begun", "refused"
FAULTS: dict[str, tuple[Step, str, str]] = {
    "429 with Retry-After": (rate_limited("rate_limit_reached", 7), FELL, "rate"),
    "429 without Retry-After": (rate_limited("engine_overloaded"), FELL, "overload"),
    "500": (Status(500, error("server_error", "oops")), FELL, "server"),
    "503 for ever": (Status(503), FELL, "server"),
    "reset": (ResetBeforeHeaders(), FELL, "broken"),
    "silent upstream": (Silence(), FELL, "timeout"),
    "slow first byte": (Delay(0.2, SIXTY), OWN, ""),
    "cut at 40 of 60 chunks": (Cut(FORTY, SIXTY), BEGUN, ""),
    "stall": (Stall(40, SIXTY), BEGUN, ""),
    "malformed chunk": (Malformed(40, SIXTY), BEGUN, ""),
    "missing [DONE]": (NoDone(SIXTY), OWN, ""),
    "context-length 400": (
        Status(400, error("invalid_request_error", "Your request exceeded model token limit : 1")),
        FELL, "context",
    ),
    "content-filter 400": (Status(400, error("content_filter", "high risk")), REFUSED, ""),
    "invalid 400": (Status(400, error("invalid_request_error", "no such field")), REFUSED, ""),
    "dead token": (Status(401, error("invalid_authentication_error", "Invalid")), FELL, "authentication"),
    "empty balance": (rate_limited("exceeded_current_quota"), FELL, "quota"),
    "model not there": (Status(404, error("resource_not_found_error", "no model")), FELL, "model"),
}  # fmt: skip
LAN = {"id": "lan", "tokens": "none", "known": [{"id": "big", "window": 2_000_000}]}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    with ThreadPoolExecutor(8) as pool:
        yield {name: pool.submit(play, tmp_path_factory.mktemp("chain"), name) for name in FAULTS}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_in_the_first_link(played: dict[str, Future[None]], name: str) -> None:
    played[name].result()


def play(folder: Path, name: str) -> None:
    step, outcome, cause = FAULTS[name]
    with ScriptedUpstream() as up:
        up.always(step)
        row = {**LAN, "bases": f"http://127.0.0.1:{up.port}/lan"}
        up.at("/lan/chat/completions", Kimi(OTHER))
        (folder / "m.json").write_text(json.dumps({"vendors": [row]}))
        patience = {"first_byte_timeout": 60.0, "ping_interval": 3600.0}
        more: dict[str, Any] = {**patience, "models": folder / "m.json"}
        chain = {"kimi-k3": ("lan/big",)}
        with LiveGateway(folder, up.url, fallbacks=chain, **more) as gateway:
            gateway.never_wait(up, 100)
            at = list(FAULTS).index(name)
            for stream in (True, False):
                format = list(FORMATS.values())[(at + stream) % 3]
                asked = ask(gateway, stream, format=format)
                seen = asked.seen
                if outcome in (OWN, FELL):
                    model = "lan/big" if outcome == FELL else "kimi-k3"
                    shown = (seen.status, seen.error, seen.finishes)
                    assert shown == (200, None, [format.stop]), gateway.log.getvalue()
                    assert seen.content == (OTHER if outcome == FELL else TEXT)
                    assert (seen.headers["x-served-by"], asked.ledger) == (model, CHARGED)
                    assert '"model":"kimi-k3"' in seen.text, "the requested name is kept"
                else:
                    assert seen.error is not None
                    assert (OTHER in seen.text, asked.ledger) == (False, NOT_CHARGED), "never two contents"
                    assert seen.status == (400 if outcome == REFUSED else 200 if stream else 503)
                if outcome != FELL:
                    assert not [each for each in up.requests if each.path.startswith("/lan/")]
            gateway.nothing_left(asked.key)
            id = seen.headers["x-request-id"]  # the log is that of all gateways of this process
            gateway.until(lambda: [each for each in gateway.lines("request") if each["id"] == id])
            (line,) = [each for each in gateway.lines("request") if each["id"] == id]
            expected = ([f"kimi-k3: {cause}"], "big", "lan")
            if outcome != FELL:
                expected = (None, "kimi-k3", "moonshot")
            assert (line.get("fell_back"), line["upstream_model"], line["provider"]) == expected


CHAIN = {"kimi-k3": ("kimi-k2.6", "qwen/qwen3.8-max"), "house": ("kimi-k3",)}
RATE = told(error("rate_limit_reached_error", "slow"), 429)


@contextmanager
def desk(**more: Any) -> Iterator[tuple[InProcess, str]]:
    given = {"fallbacks": CHAIN, "vendor_tokens": {"qwen": ("tok-qwen-1",)}, **more}
    with InProcess(**given) as gateway:
        yield gateway, gateway.key()


def failing(*models: str, by: Told | Exception | None = None) -> Any:
    def answer(sent: Sent) -> Told:
        if sent.path.endswith("/chat/completions") and sent.body["model"] in models:
            fault = by or replace(RATE, headers={**RATE.headers, "retry-after": "9"})
            if isinstance(fault, Exception):
                raise fault
            return fault
        if sent.path.startswith("/compatible-mode"):
            return streamed(*chat_events("from qwen", model="qwen3.8-max"))
        return kimi(sent)

    return answer


def asked_models(gateway: InProcess) -> list[str]:
    return [sent.body["model"] for sent in gateway.client.sent if sent.path.endswith("/chat/completions")]


def test_the_links_are_tried_in_their_order_and_the_first_failure_is_shown() -> None:
    with desk() as (gateway, key):
        gateway.client.answer = failing("kimi-k3")
        answer = gateway.chat(key, {})
        assert (answer.status, answer.headers["x-served-by"]) == (200, "kimi-k2.6")
        gateway.client.sent.clear()
        gateway.client.answer = failing("kimi-k3", "kimi-k2.6")
        answer = gateway.chat(key, {})
        assert (answer.headers["x-served-by"], asked_models(gateway)) == (
            "qwen/qwen3.8-max", ["kimi-k3", "kimi-k2.6", "qwen3.8-max"],
        )  # fmt: skip
        gateway.client.answer = failing("kimi-k3", "kimi-k2.6", "qwen3.8-max")
        refused = gateway.chat(key, {})
        assert (refused.status, refused.headers["retry-after"]) == (429, "9")
        account = gateway.account(key)
        assert (account.credits, account.reserved) == (98, 0)


def test_without_a_chain_nothing_changes() -> None:
    with desk(fallbacks={"kimi-k2.6": ("kimi-k3",)}) as (gateway, key):
        gateway.client.answer = failing("kimi-k3")
        assert gateway.chat(key, {}).status == 429
        assert "x-served-by" not in gateway.chat(key, {"model": "kimi-k2.7-code"}).headers
        assert gateway.chat(key, {"model": "kimi-k2.6"}).headers["x-served-by"] == "kimi-k2.6"


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SEES: Any = [{"role": "user", "content": [PICTURE]}]
LONG: Any = [{"role": "user", "content": "word " * 60_000}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("body", "chain", "served"),
    [
        ({"messages": SEES}, ("glm/glm-5.3", "qwen/qwen3.8-max"), "qwen/qwen3.8-max"),
        ({"tools": [TOOL]}, ("emohaa", "glm/glm-5.3"), "glm/glm-5.3"),
        ({"max_tokens": 5}, ("spark/4.0Ultra", "glm/glm-5.3"), "glm/glm-5.3"),
        ({"n": 2}, ("kimi-k2.6",), "kimi-k2.6"),
        ({"messages": LONG}, ("lan/tiny", "kimi-k2.6"), "kimi-k2.6"),
    ],
)
def test_a_link_that_cannot_serve_the_request_is_left_out(
    tmp_path: Path, body: dict[str, Any], chain: tuple[str, ...], served: str
) -> None:
    """No pictures, no tools, no token, several choices, a small window."""
    row = {**LAN, "bases": "http://lan.test/v1", "known": [{"id": "tiny", "window": 4096}]}
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"vendors": [row]}))
    tokens = {"qwen": ("tok-qwen-1",), "glm": ("tok-glm-1",)}
    with desk(fallbacks={"kimi-k3": chain}, vendor_tokens=tokens, models=file) as (gateway, key):
        gateway.client.answer = failing("kimi-k3")
        answer = gateway.chat(key, body)
        assert (answer.status, answer.headers.get("x-served-by")) == (200, served), answer.body
        assert len(answer.json["choices"]) == body.get("n", 1)


def test_a_key_falls_back_to_its_own_models_only() -> None:
    with desk() as (gateway, key):
        gateway.client.answer = failing("kimi-k3")
        change = lambda old: replace(old, models=("kimi-k3", "qwen/*"))  # noqa: E731
        gateway.run(gateway.store.update_key(keys.digest(key), change, int(gateway.now)))
        assert gateway.chat(key, {}).headers["x-served-by"] == "qwen/qwen3.8-max"


def test_a_longer_request_goes_to_a_larger_window_only() -> None:
    long = told(error("invalid_request_error", "Your request exceeded model token limit : 1"), 400)
    with desk(fallbacks={"kimi-k3": ("kimi-k2.6",), "kimi-k2.6": ("kimi-k3",)}) as (gateway, key):
        gateway.client.answer = failing("kimi-k3", "kimi-k2.6", by=long)
        assert gateway.chat(key, {}).json["error"]["code"] == "context_length_exceeded"
        assert asked_models(gateway) == ["kimi-k3"]
        gateway.client.answer = failing("kimi-k2.6", by=long)
        assert gateway.chat(key, {"model": "kimi-k2.6"}).headers["x-served-by"] == "kimi-k3"


USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}


@pytest.mark.parametrize(("fault", "billed"), [(None, 0), (ConnectFailed("nobody"), 0), (told({}, 504), 1)])
@pytest.mark.parametrize("stream", [True, False])
def test_a_budget_pays_for_who_answered_and_for_what_may_be_billed(
    fault: Any, billed: int, stream: bool
) -> None:
    """The dearer link reserves what the first reservation lacks, and nothing stays reserved."""
    with desk(fallbacks={"kimi-k2.6": ("kimi-k3",)}) as (gateway, key):
        budget = Budget("usd", "day", 10_000_000)
        change = lambda old: replace(old, budgets=(budget,))  # noqa: E731
        gateway.run(gateway.store.update_key(keys.digest(key), change, int(gateway.now)))
        bad = failing("kimi-k2.6", by=fault)

        def answer(sent: Sent) -> Told:
            first = sent.path.endswith("/chat/completions") and sent.body["model"] == "kimi-k2.6"
            return bad(sent) if first else streamed(*chat_events(model="kimi-k3", usage=USAGE))

        gateway.client.answer = answer
        told_ = gateway.chat(key, {"model": "kimi-k2.6", "max_tokens": 500, "stream": stream})
        assert told_.headers["x-served-by"] == "kimi-k3"
        account = gateway.account(key)
        (spent,) = account.spent
        most = (len(json.dumps(gateway.client.chats[0].body)) + 200) * 0.95 + 500 * 4
        own = 1_000 * 3 + 100 * 15
        assert own <= spent.amount <= own + billed * most
        assert (spent.amount > own) == bool(billed)
        assert (account.reserved, account.credits) == (0, 99)


def test_a_budget_that_does_not_pay_for_a_link_ends_the_chain() -> None:
    with desk(fallbacks={"kimi-k2.6": ("kimi-k3", "qwen/unpriced")}) as (gateway, key):
        change = lambda old: replace(old, budgets=(Budget("usd", "day", 4_000),))  # noqa: E731
        gateway.run(gateway.store.update_key(keys.digest(key), change, int(gateway.now)))
        gateway.client.answer = failing("kimi-k2.6")
        answer = gateway.chat(key, {"model": "kimi-k2.6", "max_tokens": 500})
        assert (answer.status, asked_models(gateway)) == (429, ["kimi-k2.6"])
        (spent,) = gateway.account(key).spent
        assert spent.amount == 0


def test_a_tool_call_of_another_model_has_the_clients_names() -> None:
    tool = {"type": "function", "function": {"name": "get.weather", "parameters": {"type": "object"}}}
    with desk() as (gateway, key):
        gateway.client.answer = failing("kimi-k3")
        bad = gateway.client.answer

        def answer(sent: Sent) -> Told:
            if sent.path.endswith("/chat/completions") and sent.body["model"] == "kimi-k2.6":
                name = sent.body["tools"][0]["function"]["name"]
                return streamed(*chat_events("", "thought", [(name, {"city": "Oslo"})], model="kimi-k2.6"))
            return bad(sent)  # type: ignore[no-any-return]

        gateway.client.answer = answer
        message = gateway.chat(key, {"tools": [tool]}).json["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["name"] == "get.weather"
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}


def test_a_chain_of_what_does_not_exist_is_told_at_the_start() -> None:
    with pytest.raises(CatalogFault, match="'nothing' in the chain of 'kimi-k3'"):
        load(None, chains={"kimi-k3": ["nothing"]})
    load(None, chains=dict(itertools.islice(CHAIN.items(), 1)))
