"""What SQLite adds to the contract: a file that lasts, faults that are told, and batches that do not mix."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest

from kimi_gateway.accounts.store import NoCredit, StoreDown
from kimi_gateway.accounts.values import Bound, Budget, Grant, Key, NewKey, Usage
from kimi_gateway.storage.sqlite.accounts import MOST_REVOKED
from kimi_gateway.storage.sqlite.database import MIGRATIONS
from kimi_gateway.storage.sqlite.store import TOGETHER, SqliteStore
from support.locking import locked

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.db"


async def opened(path: Path, credits: int = 100, lock_timeout: float = 5.0) -> tuple[SqliteStore, Key]:
    store = SqliteStore(path, lock_timeout=lock_timeout)
    account = await store.create_account("alice", Grant(credits), NOW)
    return store, await store.create_key(NewKey("digest", account.id), NOW)


async def test_everything_is_there_after_a_restart(path: Path) -> None:
    store, key = await opened(path)
    kept = await store.admit("kept", key, 2, NOW + 660, NOW)
    await store.settle(await store.admit("spent", key, 3, NOW + 660, NOW), "m", Usage(1, 1), NOW)
    before = await store.accounts(NOW), await store.usage(0)
    await store.close()
    again = SqliteStore(path)
    assert (await again.accounts(NOW), await again.usage(0)) == before
    assert (await again.admit("kept", key, 2, 0, NOW)).expires == kept.expires
    assert await again.settle(kept, "m", Usage(), NOW)
    await again.close()


async def test_a_commit_of_another_store_is_seen_at_once(path: Path) -> None:
    store, key = await opened(path)
    other = SqliteStore(path)
    assert await other.find_key("digest") == key
    await store.revoke_key(key.id, NOW)
    seen = await other.find_key("digest")
    assert seen is not None
    assert (seen.revoked, seen.generation) == (True, 1)
    await other.close()
    await store.close()


async def test_others_are_served_while_all_accounts_are_read(path: Path) -> None:
    """One that is deleted meanwhile is left out."""
    store, key = await opened(path)
    made = [await store.create_account(f"a{at}", Grant(at), NOW + 1) for at in range(8 * TOGETHER)]
    last = max(made, key=lambda account: account.id)
    reading = asyncio.create_task(store.accounts(NOW))
    while not await store.find_key("digest") or not await store.admit("r", key, 1, NOW + 660, NOW):
        pass
    assert not reading.done()
    await store.delete_account(last.id)
    found = await reading
    assert [account.id for account in found] == [key.account, *sorted({each.id for each in made} - {last.id})]
    assert len(await store.accounts(NOW)) == len(made)
    await store.close()


async def test_of_made_keys_that_were_revoked_the_newest_are_remembered(path: Path) -> None:
    """A key may make a hundred a day, and each would cost every reading of the account."""
    store, root = await opened(path)
    other = await store.create_key(NewKey("other", root.account), NOW)
    await store.revoke_key(other.id, NOW)  # the operator's own are all remembered
    first = await store.create_key(NewKey("first", root.account, made_by=root.id), NOW)
    for at in range(MOST_REVOKED + 30):
        new = NewKey(f"d{at}", root.account, made_by=root.id, budgets=(Budget("tokens", "day", 9_000),))
        made = await store.create_key(new, NOW + at)
        if at in (0, MOST_REVOKED):
            await store.admit(f"r{at}", made, 1, NOW + 660, NOW, Bound(NOW, 1, 1, 1, 1))
        await store.revoke_key(made.id, NOW + at)
    found = (await store.account("alice", NOW)).keys
    newest = [f"d{at}" for at in range(30, MOST_REVOKED + 30)]
    assert [key.digest for key in found if key.digest[0] == "d" and key.digest != "digest"] == newest
    assert {key.digest for key in found} == {"digest", "other", "first", *newest}
    assert {key.maker and key.maker.id for key in found} == {None, root.id}
    assert await store.find_key("d0") is None
    scopes = await store._writer.run(lambda db: db.execute("SELECT DISTINCT scope FROM spent").fetchall())
    assert scopes == [(key.id,) for key in found if key.digest == f"d{MOST_REVOKED}"]
    gone = await store.revoke_key(first.id, NOW)  # older than all that are remembered
    assert gone.revoked
    await store.close()


async def test_only_its_owner_may_read_the_file(path: Path) -> None:
    store, _ = await opened(path)
    files = sorted(path.parent.iterdir())
    assert path in files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await store.close()


async def test_a_folder_that_is_missing_is_a_store_that_is_down_until_it_is_there(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "later" / "accounts.db")
    with pytest.raises(StoreDown):
        await store.find_key("digest")
    (tmp_path / "later").mkdir()
    assert await store.find_key("digest") is None
    await store.close()


async def test_a_file_of_something_else_is_a_store_that_is_down(path: Path) -> None:
    path.write_text("this is not a database " * 100)
    store = SqliteStore(path)
    with pytest.raises(StoreDown):
        await store.accounts(NOW)
    await store.close()


async def test_a_file_of_a_newer_release_is_left_alone(path: Path) -> None:
    store, _ = await opened(path)
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    store = SqliteStore(path)
    with pytest.raises(StoreDown, match="schema"):
        await store.accounts(NOW)
    await store.close()


async def test_a_lock_held_too_long_is_a_store_that_is_down_until_it_is_free(path: Path) -> None:
    store, key = await opened(path, lock_timeout=0.0)
    with locked(path), pytest.raises(StoreDown):
        await store.admit("r", key, 1, NOW + 660, NOW)
    assert (await store.admit("r", key, 1, NOW + 660, NOW)).spendable == 99
    await store.close()


async def test_the_loop_runs_on_while_a_lock_is_waited_for(path: Path) -> None:
    store, key = await opened(path)
    with locked(path):
        admitting = asyncio.create_task(store.admit("r", key, 1, NOW + 660, NOW))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not admitting.done()
    assert (await admitting).spendable == 99
    await store.close()


async def test_a_cancelled_caller_does_not_break_the_batch_and_may_repeat(path: Path) -> None:
    store, key = await opened(path, credits=5)
    with locked(path):
        calls = [
            asyncio.create_task(store.admit(f"r{number}", key, 1, NOW + 660, NOW)) for number in range(4)
        ]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[2].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(calls[1], calls[3])
    again = await store.admit("r0", key, 1, NOW + 660, NOW)
    assert (again.id, again.cost, again.spendable) == ("r0", 1, 1)
    await store.close()


async def test_a_bug_in_one_job_costs_its_neighbours_nothing(path: Path) -> None:
    store, key = await opened(path)
    bad, good = [await store.admit(name, key, 1, NOW + 660, NOW) for name in ("bad", "good")]
    with locked(path):
        calls = [
            asyncio.create_task(store.find_key("digest")),  # holds the thread while the others queue up
            asyncio.create_task(store.settle(good, "m", Usage(1, 1), NOW)),
            asyncio.create_task(store.settle(bad, "m", Usage(2**70, 1), NOW)),
            asyncio.create_task(store.admit("too dear", key, 1_000, NOW + 660, NOW)),
            asyncio.create_task(store.admit("next", key, 1, NOW + 660, NOW)),
        ]
        await asyncio.sleep(0)
    _, settled, broken, refused, admitted = await asyncio.gather(*calls, return_exceptions=True)
    assert settled is True
    assert isinstance(broken, OverflowError)
    assert isinstance(refused, NoCredit)
    assert not isinstance(admitted, BaseException)
    account = await store.account("alice", NOW)
    assert (account.reserved, account.consumed) == (2, 1)  # the bad one's lease was put back
    assert await store.release(bad, "m", False, NOW)
    await store.close()


async def test_jobs_of_several_loops_come_back_to_their_own(path: Path) -> None:
    store, key = await opened(path)

    def elsewhere(name: str) -> int | None:
        return asyncio.run(store.admit(name, key, 1, NOW + 660, NOW)).spendable

    there = asyncio.gather(*(asyncio.to_thread(elsewhere, name) for name in ("a", "b")))
    here = await store.admit("here", key, 1, NOW + 660, NOW)
    assert {here.spendable, *await there} == {97, 98, 99}
    await store.close()


async def test_closing_finishes_what_is_queued_and_refuses_what_comes_later(path: Path) -> None:
    store, key = await opened(path)
    calls = asyncio.gather(*(store.admit(f"r{number}", key, 1, NOW + 660, NOW) for number in range(10)))
    await asyncio.sleep(0)
    await store.close()
    assert [admission.spendable for admission in await calls] == list(range(99, 89, -1))
    with pytest.raises(StoreDown):
        await store.find_key("digest")
    await store.close()


async def test_a_backup_taken_in_use_is_a_whole_and_private_store(path: Path, tmp_path: Path) -> None:
    store, key = await opened(path)
    target = tmp_path / "backup.db"
    target.write_text("the backup of yesterday")
    target.chmod(0o644)
    admitting = asyncio.gather(*(store.admit(f"r{n}", key, 1, NOW + 660, NOW) for n in range(20)))
    await store.backup(target)
    await admitting
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    copy = SqliteStore(target)
    account = await copy.account("alice", NOW)
    assert account.credits == 100
    assert account.keys == (key,)
    await copy.close()
    await store.close()


async def test_a_backup_that_fails_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    store, _ = await opened(path)
    with pytest.raises(StoreDown):
        await store.backup(tmp_path / "missing" / "backup.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreDown):
        await store.backup(tmp_path / "folder")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
    await store.close()


async def test_many_readings_at_a_time_do_not_lock_each_other_out(tmp_path: Path) -> None:
    """Each opens a connection, and closing one locks the file for a moment."""
    store = SqliteStore(tmp_path / "store.db")
    await asyncio.gather(*(store.usage(0) for _ in range(400)))
    await store.close()
