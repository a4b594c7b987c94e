"""Tokens that are out: what the list shows of the shared record, and what the doctor advises."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.providers.provider import Token
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.command import TIME, Cli, fault
from upstream import ScriptedUpstream

ONE, TWO = "canary-token-one-0123456789", "canary-token-two-0123456789"
ID = Token.of(ONE).id
Publish = Callable[..., None]


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        monkeypatch.setenv("KIMI_BASE_URL", running.url)
        yield running


@pytest.fixture
def publish(data: Path, ask: Any) -> Publish:
    """As a running gateway does, of the first of two tokens."""
    ask("keys", "create")
    ask("tokens", "add", f"{ONE},{TWO}")

    def publish(cause: str, seconds: int, model: str = "", token: str = ID) -> None:
        async def tell() -> None:
            store = SqliteStore(data / STORE_NAME)
            await store.publish(token, model, cause, int(time.time()) + seconds)
            await store.close()

        asyncio.run(tell())

    return publish


def listed(ask: Any) -> list[Any]:
    return [token["out"] for token in ask("tokens", "list")["tokens"]]


def test_what_put_a_token_out_is_listed_with_its_model_and_time(ask: Any, cli: Cli, publish: Publish) -> None:
    assert listed(ask) == [None, None]
    publish("rate", 50)
    publish("model", 500, "kimi-k3")
    (wide, of_model), other = listed(ask)
    assert (list(wide), wide["cause"], wide["model"]) == (["cause", "model", "until"], "rate", None)
    assert (of_model["cause"], of_model["model"], other) == ("model", "kimi-k3", None)
    assert TIME.fullmatch(wide["until"])
    plain = cli("tokens", "list").stdout.splitlines()
    assert plain[0].split() == ["TOKEN", "SOURCE", "USED", "OUTAGES"]
    assert f"rate, until {wide['until']}, model for kimi-k3, until {of_model['until']}" in plain[1]
    assert plain[2].split() == [Token.of(TWO).id, "file", "yes", "-"]


def test_what_is_over_is_not_listed_but_a_dead_token_is_until_it_answers(ask: Any, publish: Publish) -> None:
    publish("rate", -1)
    assert listed(ask) == [None, None]
    publish("authentication", -1)
    (dead,), _ = listed(ask)
    assert dead["cause"] == "authentication"


def test_listing_makes_no_store(ask: Any, data: Path) -> None:
    ask("tokens", "add", ONE)
    assert listed(ask) == [None]
    assert not (data / STORE_NAME).exists()


def test_a_store_that_cannot_be_read_is_reported(ask: Any, cli: Cli, data: Path, publish: Publish) -> None:
    with closing(sqlite3.connect(data / STORE_NAME)) as db:
        db.execute("PRAGMA user_version = 999")
    assert fault(cli("tokens", "list", "--json")) == (1, "store_down")
    assert "outage" not in cli("doctor").stdout


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        ("authentication", "replace it"),
        ("quota", "recharge"),
        ("permission", "what the account may use"),
        ("model", "what the account may use"),
        ("rate", "another account"),
        ("server", "another account"),
    ],
)
def test_the_doctor_warns_of_a_token_that_is_out_and_says_why(
    cli: Cli, upstream: ScriptedUpstream, publish: Publish, cause: str, advice: str
) -> None:
    publish(cause, 50, "kimi-k3" if cause in ("permission", "model") else "")
    publish("quota", 50, token="tok_of_nobody")
    result = cli("doctor", "--json")
    (check,) = [each for each in json.loads(result.stdout)["checks"] if each["name"] == "outage"]
    assert (result.exit_code, check["status"]) == (0, "warn")
    assert check["detail"].startswith(f"{ID}: {cause}")
    assert advice in check["fix"]
    assert ONE not in result.output
