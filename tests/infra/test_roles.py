"""Each role allows what its function asks of the table, and nothing else: operation by operation, key by key.

What a function asks is recorded from the store's own steps. That no function asks for more is seen in
test_stack.py, where the functions run behind these roles.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from infra.iam import allowed, granted, leading_keys
from infra.reading import listed, resources, statements
from kimi_gateway.accounts import rules
from kimi_gateway.accounts.batches import BatchRecord
from kimi_gateway.accounts.files import FileRecord, Room
from kimi_gateway.accounts.store import TooManyKeys
from kimi_gateway.accounts.values import NEVER, Budget, Grant, Key, NewKey, Usage
from kimi_gateway.net.aws import Aws, endpoints
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.net.s3 import Bucket, NoObject
from kimi_gateway.storage.answers import Claim
from support import dynamo, faulty
from support.dynamo_table import NOW, SharedTable

pytestmark = pytest.mark.anyio
LEASE = 660
Step = Callable[[SharedTable, Key], Awaitable[object]]
Pairs = set[tuple[str, str]]


@pytest.fixture
async def shared(moto_url: str) -> AsyncIterator[SharedTable]:
    table = await SharedTable.on(moto_url)
    yield table
    await table.client.close()


async def key(shared: SharedTable, key: Key) -> None:
    assert await shared.stores[1].find_key(key.digest)


async def outages(shared: SharedTable, key: Key) -> None:
    store = shared.stores[1]
    await store.publish("tok_1", "", "quota", NOW)
    assert await store.published()
    assert await store.claim("tok_1", NOW, NOW + 60)
    assert not await store.claim("tok_none", NOW, NOW + 60)
    await store.retract("tok_1", "")


async def money(shared: SharedTable, key: Key) -> None:
    """With a lease to end, and usage of an hour that is over."""
    store = shared.stores[1]
    await store.admit("lost", key, 1, NOW + LEASE, NOW)
    for now in (NOW, NOW + LEASE, NOW + 7_200, NOW + 7_201):
        admission = await store.admit(f"r{now}", key, 1, now + LEASE, now)
        assert await store.settle(admission, "kimi-k3", Usage(1, 1), now)
    admission = await store.admit("r", key, 1, NOW + LEASE, NOW)
    assert await store.release(admission, "kimi-k3", True, NOW)


async def answers(shared: SharedTable, key: Key) -> None:
    await shared.stores[1].keep(key.account, {"resp_1": b"{}"}, NOW + 60)


async def earlier(shared: SharedTable, key: Key) -> None:
    await shared.stores[1].recall(key.account, ["resp_1", "resp_2"], NOW)


async def deleted(shared: SharedTable, key: Key) -> None:
    await shared.stores[1].forget(key.account, ["resp_1"])


async def repeated(shared: SharedTable, key: Key) -> None:
    """A request with an Idempotency-Key, its repetition, and one by a key that is refused."""
    kept = shared.stores[1].answers()
    for owner in ("first", "second"):
        await kept.claim_answer(key.account, "n", Claim("asked", owner, NOW + LEASE), NOW)
        await kept.keep_answer(key.account, "n", owner, b"whole", NOW + 86_400)
        await kept.drop_claim(key.account, "n", owner)
    assert await kept.find_answer(key.account, "n", NOW)


async def attachments(shared: SharedTable, key: Key) -> None:
    """The file of a turn, and a kept one that a turn reads and a sweep deletes."""
    store, room = shared.stores[1], Room()
    passing = FileRecord("file-1", key.account, "tok_1", "passing", NOW, NOW + 60)
    await store.add_file(passing, room)
    later = replace(passing, expires=NOW + 90)
    assert await store.change_file(passing, later, room)
    assert await store.remove_file(later)
    kept = replace(passing, id="file-2", kind="kept", expires=NOW + 60)
    await shared.stores[0].add_file(kept, room)
    assert await store.file(key.account, kept.id, NOW)
    assert await store.due_files(NOW + 60, 10) == [kept]
    assert await store.change_file(kept, later := replace(kept, state="deleting", expires=NOW + 90), room)
    assert await store.remove_file(later)


async def credit(shared: SharedTable, key: Key) -> None:
    """Whether there is any, before a request may cost anything."""
    await shared.stores[1].account(key.account, NOW + 2 * LEASE)


async def usage(shared: SharedTable, key: Key) -> None:
    """Of a key, by account, and what its holder sees."""
    found = await shared.stores[1].find_key(key.digest)
    assert found is not None
    await shared.stores[1].overview(found, NOW, NOW)
    await shared.stores[1].usage_sums(NOW, ("day",), key.account)


async def files(shared: SharedTable, key: Key) -> None:
    """One that expires, from its upload to its deletion."""
    store, room = shared.stores[1], Room()
    record = FileRecord("file-1", key.account, "tok_1", "kept", NOW, NOW + 60)
    await store.add_file(record, room)
    assert await store.change_file(record, done := replace(record, state="ready", expires=NOW + 90), room)
    assert await store.file(key.account, "file-1", NOW) == done
    assert await store.files(key.account, NOW) == [done]
    assert await store.remove_file(done)


async def users(shared: SharedTable, key: Key) -> None:
    """An account that a guest opens, a key too many, a change and an end of another, a payment."""
    store = shared.stores[1]
    guest = await store.open_account(Grant(1), NewKey("first", ""), NOW, key.account)
    assert await store.tally("register/1", 1, NOW + 60, NOW)
    made = await store.create_key(NewKey("made", guest.id, made_by="", name="n"), NOW, most=2)
    with pytest.raises(TooManyKeys):
        await store.create_key(NewKey("more", guest.id), NOW, most=2)
    await store.update_key(made.id, lambda old: replace(old, name="m"), NOW)
    await store.revoke_key(made.id, NOW)
    assert await store.fund(guest.id, "p", partial(rules.granted, grant=Grant(5), now=NOW), NOW)
    assert await store.funded(guest.id, "p") == 5


async def operators(shared: SharedTable, key: Key) -> None:
    """What the operator's API does: an account from its opening to its end, and all usage."""
    store = shared.stores[1]
    made = await store.create_account("n", Grant(1), NOW)
    await store.rename_account(made.id, "m", NOW)
    await store.set_budgets(made.id, (Budget("usd", "day", 5_000_000),), NOW)
    await store.grant(made.id, Grant(5), NOW)
    await store.deduct(made.id, 1, NOW)
    own = await store.create_key(NewKey("own", made.id), NOW)
    await store.rotate_key(own.id, "new", NOW + 60, NOW)
    await store.update_key(own.id, lambda old: replace(old, suspended=True), NOW)
    await store.revoke_key(own.id, NOW)
    assert len(await store.accounts(NOW)) == 2
    await store.usage_sums(NOW, ("day",))
    await store.delete_account(made.id)
    # What other functions write about it is deleted too, and not noted here.
    noting, shared.client.plan = shared.client.plan, faulty.none
    assert await store.fund(key.account, "p", partial(rules.granted, grant=Grant(5), now=NOW), NOW)
    for now in (NOW, NOW + 7_200):
        admission = await store.admit(f"r{now}", key, 1, now + LEASE, now)
        assert await store.settle(admission, "kimi-k3", Usage(1, 1), now)
    await attachments(shared, key)
    kept = FileRecord("file-3", key.account, "tok_1", "kept", NOW, state="ready")
    await store.add_file(kept, Room())
    await answers(shared, key)
    await repeated(shared, key)
    for number, due in enumerate((NOW, NEVER)):
        record = BatchRecord(f"batch_{number}", key.account, key.id, "tok_1", NOW, "f", "24h", NOW, due)
        await store.add_batch(record, 50)
    shared.client.plan = noting
    await store.delete_account(key.account)


async def batches(shared: SharedTable, key: Key) -> None:
    """One from its creation to its end, and one that the upstream refuses."""
    store = shared.stores[1]
    record = BatchRecord("batch_1", key.account, key.id, "tok_1", NOW, "file-1", "24h", NOW + 900, NOW)
    await store.add_batch(record, 50)
    assert await store.batch(key.account, record.id, NOW) == record
    assert await store.batches(key.account, NOW) == await store.due_batches(NOW, 10) == [record]
    assert await store.change_batch(record, ended := replace(record, due=NEVER))
    await store.remove_batch(ended)


NEEDS: dict[str, tuple[Step, ...]] = {
    "Chat": (key, outages, credit, money, answers, earlier, repeated, attachments),
    "Models": (key, outages, credit),
    "Files": (key, outages, credit, money, files, attachments, batches),
    "Users": (key, outages, credit, users),
    "Admin": (key, outages, credit, usage, operators),
    "TokenCheck": (key, outages),
    "Pages": (),
    "Account": (key, outages, credit, usage, earlier, deleted),
}


def pattern(key: str) -> str:
    head, mark, _ = key.partition("#")
    return f"{head}#*" if mark else head


async def asked(shared: SharedTable, steps: tuple[Step, ...]) -> Pairs:
    made = await shared.key(Grant(100))
    found: Pairs = set()

    def note(operation: str, request: Any) -> None:
        found.update((operation, pattern(key)) for key in leading_keys(operation, request))

    shared.client.plan = note
    for step in steps:
        await step(shared, made)
    return found


@pytest.mark.parametrize("function", NEEDS)
async def test_a_role_allows_exactly_what_its_function_asks(
    template: Any, shared: SharedTable, function: str
) -> None:
    assert granted(template, function) == await asked(shared, NEEDS[function])


OBJECTS = {"PUT": "s3:PutObject", "GET": "s3:GetObject", "DELETE": "s3:DeleteObject"}


async def test_only_files_may_use_objects_and_may_exactly_what_uploads_need(
    template: Any, moto_url: str
) -> None:
    client, asked_for = Http1Client(), []

    class Noting(Aws):
        async def presigned(self, method: str, *rest: Any) -> str:
            asked_for.append(method)
            return await super().presigned(method, *rest)

    environ = {"AWS_ENDPOINT_URL": moto_url}
    aws = Noting(client, dynamo.REGION, lambda: dynamo.FAKE, endpoints(environ, dynamo.REGION))
    bucket = Bucket(aws, client, "bucket-of-nobody")
    await bucket.address("key", 1, 60)
    with pytest.raises(NoObject):
        async with bucket.read("key"):
            pass
    await bucket.delete("key")
    await client.close()
    role = resources(template, "AWS::Lambda::Function")["Files"]["Role"]["Fn::GetAtt"][0]
    found = {
        (name, action, str(statement["Resource"]))
        for name, statement in statements(template)
        for action in listed(statement["Action"])
        if action.startswith("s3:")
    }
    objects = str({"Fn::Sub": "${Uploads.Arn}/*"})
    assert found == {(role, OBJECTS[method], objects) for method in asked_for}


def test_every_function_is_looked_at(template: Any) -> None:
    assert set(NEEDS) == set(resources(template, "AWS::Lambda::Function"))


WRITES = ("PutItem", "UpdateItem", "DeleteItem")


@pytest.mark.parametrize("function", ["Models", "TokenCheck", "Account"])
def test_only_chats_write_anything_but_outages_of_upstream_tokens(template: Any, function: str) -> None:
    """Account also deletes kept answers."""
    written = {key: operation for operation, key in granted(template, function) if operation in WRITES}
    assert written.pop("R#*", None) == ("DeleteItem" if function == "Account" else None)
    assert set(written) == {"NEWS"}
    for operation in WRITES:
        place = {"pk": {"S": "A#acc_1"}, "sk": {"S": "-"}}
        assert not allowed(template, function, operation, {"Key": place, "Item": place})
