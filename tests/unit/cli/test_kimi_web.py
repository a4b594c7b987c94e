"""The web service of kimi.com on the command line: its token, the warnings, and its sweep."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway import settings
from kimi_gateway.accounts.files import FileRecord, Room
from kimi_gateway.catalog import catalog
from kimi_gateway.catalog.models import CatalogFault
from kimi_gateway.providers.kimi_web.traces import mark_of
from kimi_gateway.providers.provider import Token
from kimi_gateway.storage.sqlite.opening import open_store
from support.kimi_web import models_file
from upstream import ScriptedUpstream
from upstream.kimi_web import Chat, WebService


@pytest.fixture(scope="module")
def service() -> Iterator[WebService]:
    with ScriptedUpstream() as upstream:
        yield WebService(upstream)


@pytest.fixture
def switched(service: WebService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_GATEWAY_KIMI_WEB", "on")
    monkeypatch.setenv("KIMI_GATEWAY_MODELS", str(models_file(service, tmp_path)))


def test_a_token_is_stored_before_the_switch_and_the_command_warns(
    cli: Any, service: WebService, data: Path
) -> None:
    token = service.refresh_token()
    said = cli("tokens", "add", "--vendor", "kimi-web", typed=token)
    assert (said.exit_code, "unofficial" in said.stdout) == (0, True)
    assert "KIMI_GATEWAY_KIMI_WEB=on" in said.stdout
    assert token not in said.stdout + said.stderr
    assert json.loads((data / "tokens.json").read_text())["kimi-web"] == [token]


@pytest.mark.parametrize("way", ["cookie", "array"])
def test_what_a_browser_shows_is_understood(cli: Any, service: WebService, data: Path, way: str) -> None:
    token = service.refresh_token()
    text = f"a=b; kimi-auth={token}; c=d" if way == "cookie" else json.dumps(token.split("."))
    assert cli("tokens", "add", "--vendor", "kimi-web", typed=text).exit_code == 0
    assert json.loads((data / "tokens.json").read_text())["kimi-web"] == [token]


@pytest.mark.usefixtures("switched")
def test_the_doctor_warns_and_asks_whether_the_session_lives(
    cli: Any, service: WebService, data: Path
) -> None:
    cli("tokens", "add", "--vendor", "kimi-web", typed=service.refresh_token())
    cli("tokens", "add", "--vendor", "kimi-web", typed="eyJhbGciOiJIUzUxMiJ9.e30.dead")
    checked = json.loads(cli("tokens", "check", "--json").stdout)["tokens"]
    assert [each["live"] for each in checked] == [True, False]
    checks = json.loads(cli("doctor", "--json").stdout)["checks"]
    found = [(each["status"], each["detail"]) for each in checks if each["name"] == "vendor"]
    assert [status for status, _ in found] == ["ok", "FAIL", "warn"]
    assert "may cost the account" in found[-1][1]


@pytest.mark.usefixtures("switched")
def test_a_sweep_deletes_what_a_dead_process_left(cli: Any, service: WebService, data: Path) -> None:
    token = service.refresh_token()
    cli("tokens", "add", "--vendor", "kimi-web", typed=token)
    cli("accounts", "create", "someone")  # a store
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for id, content in (("left", "A secret"), ("diary", "My diary")):
        service.chats[id] = Chat(id, content, made, "one")

    async def leave() -> None:
        store = open_store(settings.read())
        now, of = int(time.time()), {"purpose": "conversation", "detail": mark_of("A secret")}
        record = FileRecord("file-1", "kimi-web", Token.of(token).id, "passing", now - 60, now - 30, **of)
        await store.add_file(record, Room())
        await store.close()

    asyncio.run(leave())
    swept = json.loads(cli("files", "sweep", "--json").stdout)
    assert (swept, list(service.chats)) == ({"deleted": 1, "left": 0}, ["diary"])
    service.chats.clear()


@pytest.mark.parametrize(
    "more",
    [{"AWS_LAMBDA_RUNTIME_API": "x"}, {"KIMI_GATEWAY_TABLE": "abc"}, {"KIMI_GATEWAY_SECRET": "abc"}],
    ids=["function", "table", "secret"],
)
def test_it_is_for_home_only(more: dict[str, str]) -> None:
    with pytest.raises(settings.SettingsFault, match="for home only"):
        settings.read({"KIMI_GATEWAY_KIMI_WEB": "on", "AWS_REGION": "eu-west-1", **more})


def test_it_is_off_until_it_is_switched_on(service: WebService, tmp_path: Path) -> None:
    assert not settings.read({}).kimi_web
    assert catalog.load(None).find("kimi-web/k3") is None
    assert catalog.load(None, web=True).find("kimi-web/k3") is not None
    with pytest.raises(CatalogFault, match="KIMI_GATEWAY_KIMI_WEB=on"):
        catalog.load(None, {"kimi-web": ["tok-1"]})
    with pytest.raises(CatalogFault, match="KIMI_GATEWAY_KIMI_WEB=on"):
        catalog.load(models_file(service, tmp_path))
