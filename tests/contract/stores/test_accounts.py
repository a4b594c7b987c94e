"""Every store: accounts, keys, grants that expire, names and usage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kimi_gateway.accounts.store import KeyStale, NoCredit, Store, Taken, Unknown, Unlimited, WindowFull
from kimi_gateway.accounts.values import NEVER, Grant, Key, Limits, NewKey, Usage, UsageRow
from support.store_client import LEASE, NOW, MakeClient

pytestmark = pytest.mark.anyio

SOON, LATER = NOW + 1_000, NOW + 2_000


async def test_a_new_account_holds_its_opening_balance(store: Store) -> None:
    account = await store.create_account("alice", Grant(100), NOW)
    assert account.id.startswith("acc_")
    assert (account.name, account.unlimited, account.created) == ("alice", False, NOW)
    assert (account.credits, account.reserved, account.consumed, account.expired) == (100, 0, 0, 0)
    assert (account.grants, account.keys) == ((Grant(100),), ())


async def test_a_key_is_found_by_its_digest_as_it_was_made(store: Store) -> None:
    account = await store.create_account("alice", None, NOW)
    made = await store.create_key(NewKey("d1", account.id, "laptop", Limits(1, None, 3), True), NOW)
    assert made == Key(made.id, "d1", account.id, "laptop", Limits(1, None, 3), True, False, NOW, 0)
    assert made.id.startswith("key_")
    assert await store.find_key("d1") == made
    assert await store.find_key("d2") is None
    assert (await store.account("alice", NOW)).keys == (made,)


async def test_keys_are_made_for_existing_accounts_and_once(store: Store) -> None:
    with pytest.raises(Unknown):
        await store.create_key(NewKey("d1", "acc_0000000000"), NOW)
    account = await store.create_account("alice", None, NOW)
    await store.create_key(NewKey("d1", account.id), NOW)
    with pytest.raises(Taken):
        await store.create_key(NewKey("d1", account.id), NOW)


@pytest.mark.parametrize("by", ["id", "digest"])
async def test_a_key_is_revoked_by_id_or_digest(store: Store, client: MakeClient, by: str) -> None:
    alice = await client()
    revoked = await store.revoke_key(getattr(alice.key, by), NOW)
    assert (revoked.id, revoked.revoked, revoked.generation) == (alice.key.id, True, 1)
    assert await store.find_key(alice.key.digest) == revoked


async def test_a_key_made_after_a_revocation_works_at_once(store: Store, client: MakeClient) -> None:
    alice = await client()
    await store.revoke_key(alice.key.id, NOW)
    alice.key = await store.create_key(NewKey("next", alice.id), NOW)
    assert (await alice.admit()).spendable == 99


@pytest.mark.parametrize("by", ["id", "digest"])
async def test_a_key_is_changed_at_once_and_keeps_what_an_update_may_not_change(
    store: Store, client: MakeClient, by: str
) -> None:
    alice = await client()
    sibling = await store.create_key(NewKey("sibling", alice.id), NOW)
    wanted = {
        "name": "desk", "limits": Limits(None, 7, None), "see_balance": True, "models": ("kimi-k3", "my-*"),
        "expires": LATER, "note": "until the fair\nis over", "suspended": True,
    }  # fmt: skip
    fixed = {"id": "key_0000000000", "digest": "other", "account": "acc_0000000000", "revoked": True,
             "created": 1, "generation": 9}  # fmt: skip
    named: str = getattr(alice.key, by)
    changed = await store.update_key(named, lambda key: replace(key, **wanted, **fixed), NOW)
    assert changed == replace(alice.key, **wanted, generation=1)
    assert await store.find_key(alice.key.digest) == changed
    assert (await store.account(alice.id, NOW)).keys == tuple(
        sorted((changed, replace(sibling, generation=1)), key=lambda key: key.id)
    )
    with pytest.raises(KeyStale):
        await alice.admit()
    again = await store.update_key(named, lambda key: replace(key, limits=Limits(), models=()), NOW)
    assert again == replace(changed, limits=Limits(), models=(), generation=2)
    assert await store.find_key("sibling") == replace(sibling, generation=2)


async def test_an_update_of_a_revoked_key_does_not_bring_it_back(store: Store, client: MakeClient) -> None:
    alice = await client()
    await store.revoke_key(alice.key.id, NOW)
    changed = await store.update_key(alice.key.id, lambda key: replace(key, revoked=False, note="n"), NOW)
    assert (changed.revoked, changed.note) == (True, "n")
    alice.key = changed
    with pytest.raises(KeyStale):
        await alice.admit()


async def test_a_rotated_key_has_two_secrets_for_a_while(store: Store, client: MakeClient) -> None:
    alice = await client(limits=Limits(minute=2))
    rotated = await store.rotate_key(alice.key.id, "second", SOON, NOW)
    assert rotated == replace(
        alice.key, digest="second", old_digest=alice.key.digest, old_until=SOON, generation=1
    )
    assert await store.find_key("second") == rotated
    old = await store.find_key(alice.key.digest)
    assert old == replace(rotated, digest=alice.key.digest, expires=SOON)
    with pytest.raises(KeyStale):
        await alice.admit()
    for key in (rotated, old):  # both count in the same windows
        assert key is not None
        alice.key = key
        await alice.admit()
    with pytest.raises(WindowFull):
        await alice.admit()
    third = await store.rotate_key("second", "third", LATER, NOW)
    assert (third.id, third.digest, third.old_digest) == (alice.key.id, "third", "second")
    assert await store.find_key("digest-0") is None
    changed = await store.update_key("second", lambda key: replace(key, note="n", digest="x"), NOW)
    assert changed == replace(third, note="n", generation=3)
    assert (await store.account("third", NOW)).keys == (changed,)


async def test_a_secret_belongs_to_one_key(store: Store, client: MakeClient) -> None:
    alice, bob = await client(), await client()
    with pytest.raises(Taken):
        await store.rotate_key(alice.key.id, bob.key.digest, SOON, NOW)
    assert await store.find_key(bob.key.digest) == bob.key
    await store.rotate_key(bob.key.id, "second", SOON, NOW)
    with pytest.raises(Taken):
        await store.create_key(NewKey(bob.key.digest, alice.id), NOW)
    with pytest.raises(Unknown):
        await store.rotate_key("key_0000000000", "d", SOON, NOW)


async def test_an_account_is_renamed(store: Store, client: MakeClient) -> None:
    alice = await client(credits=7)
    renamed = await store.rename_account(alice.id, "alicia", NOW)
    assert (renamed.id, renamed.name, renamed.credits, renamed.keys) == (alice.id, "alicia", 7, (alice.key,))
    assert (await store.account("alicia", NOW)).id == alice.id
    with pytest.raises(Unknown):
        await store.account("account-0", NOW)
    assert (await alice.admit()).spendable == 6
    with pytest.raises(Unknown):
        await store.rename_account("acc_0000000000", "n", NOW)


async def test_nothing_is_left_of_a_deleted_account(store: Store, client: MakeClient) -> None:
    alice, bob = await client(), await client()
    for each in (alice, bob):
        await each.spend(1)
        each.now += 3_600
        await each.spend(1)
    running, failing = await alice.admit(), await alice.admit()
    await store.delete_account(alice.id)
    for name in (alice.id, "account-0", alice.key.id, alice.key.digest):
        with pytest.raises(Unknown):
            await store.account(name, NOW)
    assert await store.find_key(alice.key.digest) is None
    with pytest.raises(KeyStale):
        await alice.admit()
    assert not await alice.settle(running)
    assert not await alice.release(failing, error=True)
    await store.renew([running], NOW + LEASE)
    assert [account.id for account in await store.accounts(NOW)] == [bob.id]
    assert {row.account for row in await store.usage(0)} == {bob.id}
    with pytest.raises(Unknown):
        await store.delete_account(alice.id)
    again = await store.create_account("account-0", Grant(1), NOW)
    assert (await store.account("account-0", NOW)).id == again.id


async def test_a_key_is_made_with_all_its_terms(store: Store) -> None:
    account = await store.create_account("alice", None, NOW)
    new = NewKey("d1", account.id, "laptop", Limits(1, None, 3), True, ("kimi-k3",), LATER, "note")
    made = await store.create_key(new, NOW)
    assert (made.models, made.expires, made.note, made.suspended) == (("kimi-k3",), LATER, "note", False)
    assert await store.find_key("d1") == made


async def test_what_nobody_is_called_is_unknown(store: Store) -> None:
    with pytest.raises(Unknown):
        await store.revoke_key("key_0000000000", NOW)
    with pytest.raises(Unknown):
        await store.update_key("key_0000000000", lambda key: key, NOW)
    with pytest.raises(Unknown):
        await store.account("nobody", NOW)
    with pytest.raises(Unknown):
        await store.grant("acc_0000000000", Grant(1), NOW)


async def test_an_account_is_found_by_its_id_its_name_and_its_keys(store: Store, client: MakeClient) -> None:
    alice, _ = await client(), await client()
    for name in (alice.id, "account-0", alice.key.id, alice.key.digest):
        assert (await store.account(name, NOW)).id == alice.id


async def test_a_name_that_fits_two_accounts_is_unknown(store: Store) -> None:
    first = await store.create_account("twin", Grant(1), NOW)
    second = await store.create_account("twin", Grant(1), NOW)
    with pytest.raises(Unknown):
        await store.account("twin", NOW)
    assert (await store.account(second.id, NOW)).id == second.id
    await store.create_account(first.id, Grant(1), NOW)
    with pytest.raises(Unknown):
        await store.account(first.id, NOW)


async def test_accounts_are_listed_oldest_first_with_expired_things_folded(
    store: Store, client: MakeClient
) -> None:
    young = await client(credits=Grant(5, SOON), now=NOW + 1)
    old = await client(credits=7)
    await old.admit()
    listed = await store.accounts(NOW + LEASE + 1_000)
    assert [(account.id, account.credits, account.reserved, account.expired) for account in listed] == [
        (old.id, 7, 0, 0),
        (young.id, 0, 0, 5),
    ]


async def test_the_grant_that_expires_first_is_spent_first(store: Store, client: MakeClient) -> None:
    alice = await client(credits=10)
    await store.grant(alice.id, Grant(10, LATER), NOW)
    account = await store.grant(alice.id, Grant(10, SOON), NOW)
    assert account.grants == (Grant(10, SOON), Grant(10, LATER), Grant(10, NEVER))
    await alice.spend(14)
    assert (await alice.account()).grants == (Grant(6, LATER), Grant(10, NEVER))


async def test_what_was_spent_before_a_grant_stays_with_the_older_ones(
    store: Store, client: MakeClient
) -> None:
    alice = await client(credits=100)
    await alice.spend(60)
    account = await store.grant(alice.id, Grant(50, SOON), NOW)
    assert account.grants == (Grant(50, SOON), Grant(40))


async def test_grants_are_gone_at_the_second_they_expire(client: MakeClient) -> None:
    alice = await client(credits=Grant(10, SOON))
    await alice.spend(4)
    alice.now = SOON - 1
    assert await alice.spendable() == 6
    alice.now = SOON
    account = await alice.account()
    assert (account.credits, account.consumed, account.expired, account.grants) == (0, 4, 6, ())


async def test_admission_does_not_spend_an_expired_grant(store: Store, client: MakeClient) -> None:
    alice = await client(credits=Grant(10, SOON))
    alice.now = SOON
    with pytest.raises(NoCredit):
        await alice.admit()
    await store.grant(alice.id, Grant(2, LATER), SOON)
    assert (await alice.admit()).spendable == 1


async def test_the_tier_is_that_of_what_has_not_expired(store: Store, client: MakeClient) -> None:
    alice = await client(credits=100)
    await store.grant(alice.id, Grant(5_000, SOON), NOW)
    before = await alice.admit()
    alice.now = SOON
    after = await alice.admit()
    assert before.window is not None
    assert after.window is not None
    assert (before.window.limit, after.window.limit) == (200, 20)


async def test_a_credit_released_after_its_grant_expired_has_no_expiry(client: MakeClient) -> None:
    alice = await client(credits=Grant(10, SOON))
    admission = await alice.admit(cost=3)
    alice.now = SOON
    assert await alice.release(admission)
    account = await alice.account()
    assert (account.credits, account.expired, account.grants) == (3, 7, (Grant(3),))


async def test_a_credit_whose_lease_ends_after_its_grant_expired_has_no_expiry(
    store: Store, client: MakeClient
) -> None:
    alice = await client(credits=Grant(10, NOW + LEASE))
    await alice.admit(cost=3)
    assert await store.purge(NOW + LEASE) == 1
    alice.now = NOW + LEASE
    assert (await alice.account()).grants == (Grant(3),)


async def test_a_grant_that_is_past_already_is_counted_as_expired(store: Store, client: MakeClient) -> None:
    alice = await client(credits=1)
    account = await store.grant(alice.id, Grant(5, NOW), NOW)
    assert (account.credits, account.expired) == (1, 5)


async def test_an_unlimited_account_takes_no_grant(store: Store, client: MakeClient) -> None:
    free = await client(credits=None)
    with pytest.raises(Unlimited):
        await store.grant(free.id, Grant(1), NOW)


async def test_a_grant_takes_nothing_away(store: Store, client: MakeClient) -> None:
    alice = await client(credits=10)
    with pytest.raises(ValueError, match="cannot take"):
        await store.grant(alice.id, Grant(-1), NOW)
    assert await alice.spendable() == 10


async def test_usage_is_counted_by_hour_key_and_model(store: Store, client: MakeClient) -> None:
    alice = await client(now=NOW + 5)
    await alice.settle(await alice.admit(cost=2), Usage(10, 1))
    alice.now += 10
    await alice.settle(await alice.admit(), Usage(30, 3))
    await store.settle(await alice.admit(), "kimi-k3", Usage(1, 1), alice.now)
    alice.now += 3_600
    await alice.settle(await alice.admit())
    alone = (alice.id, alice.key.id)
    assert await store.usage(NOW) == [
        UsageRow(NOW, *alone, "kimi-k2", 2, 0, 40, 4, 3, NOW + 15),
        UsageRow(NOW, *alone, "kimi-k3", 1, 0, 1, 1, 1, NOW + 15),
        UsageRow(NOW + 3_600, *alone, "kimi-k2", 1, 0, 0, 0, 1, NOW + 3_615),
    ]


async def test_a_release_counts_an_error_only_where_there_was_one(store: Store, client: MakeClient) -> None:
    alice = await client()
    await alice.release(await alice.admit())
    assert await store.usage(NOW) == []
    failed = await alice.admit()
    await alice.release(failed, error=True)
    await alice.release(failed, error=True)
    assert await store.usage(NOW) == [UsageRow(NOW, alice.id, alice.key.id, "kimi-k2", 0, 1, 0, 0, 0, NOW)]


async def test_usage_is_reported_one_account_and_from_an_hour_on(store: Store, client: MakeClient) -> None:
    alice, bob = await client(), await client()
    for each in (alice, bob):
        await each.spend(1)
        each.now += 3_600
        await each.spend(1)
    assert len(await store.usage(NOW + 3_599)) == 4
    assert [row.hour for row in await store.usage(NOW + 3_601, alice.id)] == [NOW + 3_600]
    assert await store.usage(NOW + 7_200) == []
