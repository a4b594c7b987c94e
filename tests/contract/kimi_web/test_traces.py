"""The conversations that requests leave in the account: recorded before they can exist, and deleted, also
after a crash. A chat of the account's owner is never touched."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from kimi_gateway.storage.sqlite.opening import STORE_NAME
from support.exchange import streaming
from support.kimi_web import models_file, with_web
from support.server_process import ServerProcess
from upstream import HANG, Status
from upstream.kimi_web import CHAT, TEXT, UNAUTHENTICATED, Chat, Connect, Frames, WebService, framed

MODEL = "kimi-web/k2.6"
WORD = framed({"block": {"text": {"content": "Hello"}}})


def owners(own: WebService, content: str = "My diary") -> Chat:
    """A chat that the account's owner has at the service."""
    chat = Chat("ownchat0000000000001", content, "2026-11-28T12:00:00Z", "one")
    own.chats[chat.id] = chat
    return chat


def records(folder: Path) -> list[tuple[str, str]]:
    """The state and the service's id of each conversation on record."""
    with closing(sqlite3.connect(folder / "data" / STORE_NAME)) as db:
        return list(db.execute("SELECT state, upstream FROM files WHERE purpose = 'conversation'"))


def test_each_conversation_is_deleted_behind_the_answer_and_counted(own: WebService, tmp_path: Path) -> None:
    with with_web(own, tmp_path) as gateway:
        diary, key = owners(own), gateway.key()
        for _ in range(3):
            assert gateway.chat(key, model=MODEL).status_code == 200
        gateway.until(lambda: len(own.deleted) == 3)
        gateway.until(lambda: not records(tmp_path))
        line = gateway.lines("conversations_deleted")[-1]
        assert (line["begun"], line["deleted"], line["left"]) == (3, 3, 0)
        assert list(own.chats) == [diary.id]
        own.chats.clear()


def test_a_deletion_that_fails_is_repeated_and_delays_no_answer(own: WebService, tmp_path: Path) -> None:
    own.refusing.extend([Status(500, ""), Status(429, {"code": "resource_exhausted"})])
    with with_web(own, tmp_path) as gateway:
        key = gateway.key()
        assert gateway.chat(key, model=MODEL).json()["choices"][0]["message"]["content"] == TEXT
        gateway.until(lambda: not own.chats)
        assert own.counted["delete"] == 3


def test_what_cannot_be_deleted_now_is_left_to_a_later_sweep(own: WebService, tmp_path: Path) -> None:
    own.refusing.extend([Status(500, "")] * 3)
    clock = Clock()
    with with_web(own, tmp_path, clock=clock) as gateway:
        assert gateway.chat(gateway.key(), model=MODEL).status_code == 200
        gateway.until(lambda: gateway.lines("file_left"))
        gateway.until(lambda: records(tmp_path)[0][0] == "deleting")
        clock.ahead = 61
        gateway.do(gateway.app.running.attachments.beat())  # type: ignore[union-attr]
        assert (own.chats, records(tmp_path)) == ({}, [])


class Clock:
    ahead = 0

    def __call__(self) -> float:
        return time.time() + self.ahead


def test_a_refused_session_leaves_no_record(own: WebService, tmp_path: Path) -> None:
    with with_web(own, tmp_path) as gateway:
        own.plan(UNAUTHENTICATED, UNAUTHENTICATED)
        assert gateway.chat(gateway.key(), model=MODEL).status_code == 503
        gateway.until(lambda: not records(tmp_path))
        assert own.counted["delete"] == 0


def test_the_record_stands_before_the_service_knows_of_the_conversation(
    own: WebService, tmp_path: Path
) -> None:
    with with_web(own, tmp_path, first_byte_timeout=60.0) as gateway:
        own.plan(Connect([HANG]))
        key = gateway.key()
        asking = threading.Thread(target=gateway.chat, args=(key,), kwargs={"model": MODEL})
        asking.start()
        own.up.until(lambda: any(each.path == CHAT for each in own.up.requests))
        assert records(tmp_path) == [("uploading", "")]
        gateway.pass_time(100)
        asking.join()
        gateway.until(lambda: records(tmp_path) == [("deleting", "")])  # looked for once more by a sweep


@pytest.mark.parametrize("known", [True, False], ids=["its id was known", "its id never came"])
def test_a_conversation_of_a_killed_process_is_deleted_by_the_next_one(
    own: WebService, tmp_path: Path, known: bool
) -> None:
    token, diary = own.refresh_token(), owners(own)
    settings = {
        "kimi_web": "on", "models": models_file(own, tmp_path), "tokens_kimi_web": token,
        "lease": 1, "max_request": 0,
    }  # fmt: skip
    with ServerProcess(tmp_path, own.up.url, **settings) as server:
        key = server.key()
        own.plan(Frames([WORD, HANG]) if known else Unheard(own))
        asked = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "A secret"}]}
        asking = threading.Thread(target=post_quietly, args=(server, key, asked))
        asking.start()
        server.until(lambda: len(own.chats) == 2)
        server.until(lambda: records_of(server) == [("ready" if known else "uploading", not known)])
        server.kill()
        asking.join()
        assert server.process.stdout is not None
        assert "unofficial" in server.process.stdout.read(), "the command warns when it starts"
    assert len(own.chats) == 2
    with ServerProcess(tmp_path, own.up.url, **settings) as server:
        server.until(lambda: list(own.chats) == [diary.id])
        assert own.deleted
        server.until(lambda: not records_of(server))
    assert token not in server.log
    own.chats.clear()


def records_of(server: ServerProcess) -> list[tuple[str, bool]]:
    """The state of each conversation on record, and whether its id is still unknown."""
    return [(state, not upstream) for state, upstream in records(server.folder)]


class Unheard:
    """The service makes the chat, and its answer never comes."""

    def __init__(self, own: WebService) -> None:
        self.own = own

    def reply(self, request: Any) -> Any:
        content = json.loads(request.raw[5:])["message"]["blocks"][0]["text"]["content"]
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        chat = Chat("unheard0000000000001", content, made, "one")
        self.own.chats[chat.id] = chat
        return Connect([HANG]).reply(request)


def post_quietly(server: ServerProcess, key: str, asked: dict[str, Any]) -> None:
    with server.client(key) as client, suppress(httpx.TransportError):
        client.post("/v1/chat/completions", json=asked)


def test_a_client_that_leaves_before_the_id_came_leaves_no_conversation(
    own: WebService, tmp_path: Path
) -> None:
    diary = owners(own)
    with with_web(own, tmp_path, ping_interval=0.05) as gateway:
        own.plan(Unheard(own))
        with streaming(gateway, gateway.key(), model=MODEL) as (_, lines):
            next(lines)  # a sign of life
        gateway.until(lambda: list(own.chats) == [diary.id])
        own.chats.clear()
