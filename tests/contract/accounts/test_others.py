"""A matrix over every path: what belongs to one account is out of reach for the key of another."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.batches import BatchRecord
from kimi_gateway.accounts.files import FileRecord, Room
from kimi_gateway.accounts.values import Account, NewKey
from kimi_gateway.edge.router import Access, Route
from kimi_gateway.edge.routes import routes
from support import attaching
from support.attaching import PATHS
from support.inprocess import NOW, InProcess, Sent, Told, kimi, told

WITHOUT_OWNER = ("/ping", "/health", "/token/check", "/user/register", "/webhooks/payment")
TOKEN = "tok_1"


class Anything:
    def __getattr__(self, name: str) -> Anything:
        return self


TABLE = [route for route in routes(Anything(), Anything()) if route.path not in WITHOUT_OWNER]  # type: ignore[arg-type]


@dataclass
class Owner:
    """Alice, with one of everything that an account can own; `marks` are texts that only she may see."""

    key: str
    account: Account
    ids: dict[str, str]
    marks: tuple[str, ...]


def manager(desk: InProcess, name: str, credits: int | None = 100) -> str:
    key = desk.key(credits)
    digest = keys.digest(key)
    desk.run(desk.store.update_key(digest, lambda old: replace(old, manages=True, name=name), NOW))
    return key


@pytest.fixture
def desk() -> Iterator[InProcess]:
    def answer(sent: Sent) -> Told:
        return told({"error": {"message": "no such thing"}}, 404) if "file" in sent.path else kimi(sent)

    with InProcess(batches=("*",)) as desk:
        desk.client.answer = answer
        yield desk


@pytest.fixture
def alice(desk: InProcess) -> Owner:
    key = manager(desk, "alice-key")
    account = desk.account(key)
    made = desk.run(
        desk.store.create_key(NewKey("d", account.id, "alice-phone", made_by=account.keys[0].id), NOW)
    )
    token = desk.running.pool.all()[0].id
    file = FileRecord(
        "file-ofalice", account.id, token, "kept", NOW, NOW + 9_999, "ready", "up-alice", "alice.txt"
    )
    desk.run(desk.store.add_file(file, Room()))
    shared = replace(file, id="file-shared", kind="shared", upstream="up-shared", filename="image x")
    desk.run(desk.store.add_file(shared, Room()))
    batch = BatchRecord(
        "batch_ofalice", account.id, account.keys[0].id, token, NOW, file.id, "24h", NOW, NOW + 999
    )
    desk.run(desk.store.add_batch(batch, 50))
    asked = {"model": "kimi-k3", "input": "alice-question", "store": True}
    response = desk.call("POST", "/v1/responses", asked, key).json["id"]
    ids = {"key": made.id, "file": file.id, "batch": batch.id, "response": response, "model": "kimi-k3"}
    ids |= {"shared": shared.id, "at_the_vendor": shared.upstream}
    marks = (account.id, account.keys[0].id, made.id, "alice-", "alice.txt", file.id, batch.id, response)
    return Owner(key, desk.account(key), ids, marks)


def state(desk: InProcess, alice: Owner) -> Any:
    account = alice.account.id
    return (
        desk.run(desk.store.account(account, int(desk.now))),
        desk.run(desk.store.files(account, int(desk.now))),
        desk.run(desk.store.batches(account, int(desk.now))),
        desk.call("GET", f"/v1/responses/{alice.ids['response']}", b"", alice.key).status,
    )


def place(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\+?\}", lambda found: ids.get(found[1], ids["response"]), path)


def unasked(text: str, path: str, alice: Owner) -> str:
    """The text without the ids that were asked for."""
    for id in alice.ids.values() if "{" in path else ():
        text = text.replace(id, "")
    return text


@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_a_key_reaches_nothing_of_another_account(desk: InProcess, alice: Owner, route: Route) -> None:
    bob = manager(desk, "bob-key", None)  # batches are for unlimited accounts
    before = state(desk, alice)
    for path in (route.path, *route.aliases):
        at = place(path, alice.ids)
        answer = desk.call(route.method, at, route.example or b"", bob)
        named = "{" in path and "{model" not in path
        operators = path.startswith("/admin") and route.access is not Access.PAGE
        refused = (403,) if operators else (400, 404) if named and route.access is not Access.PAGE else ()
        assert not refused or answer.status in refused, (at, answer.status, answer.body)
        shown = unasked(answer.body.decode(), path, alice)
        assert not [mark for mark in alice.marks if mark in shown], shown
    assert state(desk, alice) == before


def said(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": parts}]


def _media(form: str, name: str, ids: dict[str, str]) -> dict[str, Any]:
    """A picture that is named by an id of hers, the gateway's or the vendor's."""
    return attaching.body(form, attaching.user(form, attaching.picture(form, ids[name])))


REFERENCES: dict[str, tuple[str, Callable[[dict[str, str]], dict[str, Any]]]] = {
    "an earlier response": (
        "/v1/responses",
        lambda ids: {"input": "x", "previous_response_id": ids["response"]},
    ),
    "a file in Chat Completions": (
        "/v1/chat/completions",
        lambda ids: {"messages": said([{"type": "file", "file": {"file_id": ids["file"]}}])},
    ),
    "a file in Messages": (
        "/v1/messages",
        lambda ids: {
            "max_tokens": 9,
            "messages": said([{"type": "document", "source": {"type": "file", "file_id": ids["file"]}}]),
        },
    ),
    "a file in Responses": (
        "/v1/responses",
        lambda ids: {"input": said([{"type": "input_file", "file_id": ids["file"]}])},
    ),
    **{
        f"an upload of a turn in {form} by {name}": (PATHS[form], partial(_media, form, name))
        for form in PATHS
        for name in ("shared", "at_the_vendor")
    },
    "a file for a batch": (
        "/v1/batches",
        lambda ids: {
            "input_file_id": ids["file"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
    ),
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_request_refers_to_nothing_of_another_account(
    desk: InProcess, alice: Owner, reference: str
) -> None:
    bob = manager(desk, "bob-key", None)
    before, sent = state(desk, alice), len(desk.client.chats)
    path, body = REFERENCES[reference]
    answer = desk.call("POST", path, {**body(alice.ids), "model": "kimi-k2.6"}, bob)
    assert answer.status in (400, 404), answer.body
    shown = unasked(answer.body.decode(), "{}", alice)
    assert not [mark for mark in alice.marks if mark in shown], shown
    assert len(desk.client.chats) == sent
    assert state(desk, alice) == before


LIMITS = {"limits": {"rpm": 10**6}, "in_flight": 10**6, "tokens": 10**9, "budgets": {"usd/day": 10**6}}


@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_no_route_raises_the_terms_of_its_own_key(desk: InProcess, route: Route) -> None:
    """Not for a key that the operator made, and not for one that a key made."""
    maker = manager(desk, "bob-key")
    made = desk.call("POST", "/user/keys", {"limits": {"rpm": 50}}, maker).json
    account = desk.account(maker)
    (own,) = [each.id for each in account.keys if not each.made_by]
    for key, id in ((maker, own), (made["key"], made["id"])):
        ids = dict.fromkeys(("key", "file", "batch", "response", "conversation_id"), id) | {
            "model": "kimi-k3"
        }
        body = {**(route.example or {}), **LIMITS, "manages": True, "suspended": False}
        desk.call(route.method, place(route.path, ids), body, key, ("x-key", json.dumps(LIMITS)))
    after = {each.id: each for each in desk.account(maker).keys}
    for each in account.keys:
        assert replace(after[each.id], generation=0, maker=None) == replace(each, generation=0, maker=None)
