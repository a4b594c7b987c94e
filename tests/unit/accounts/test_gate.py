"""The gate: which credentials count, what is cached, and what a refusal is remembered for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.bucket import Buckets, SlidingWindow
from kimi_gateway.accounts.gate import Gate, credentials
from kimi_gateway.accounts.limit_headers import admission_headers
from kimi_gateway.accounts.store import StoreDown, StoreThrottled
from kimi_gateway.accounts.values import Admission, Bound, Grant, Key, Limits, NewKey, Usage, Window
from kimi_gateway.errors import (
    GatewayError,
    InsufficientCredits,
    InvalidKey,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from kimi_gateway.http import Headers
from kimi_gateway.storage.memory import MemoryStore

NOW = 1_795_212_030
A, B = keys.new_key(), keys.new_key()
pytestmark = pytest.mark.anyio


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(pairs)


def bearer(key: str) -> Headers:
    return headers(("authorization", f"Bearer {key}"))


TABLE: dict[str, tuple[Headers, list[str]]] = {
    "Bearer": (bearer("k"), ["k"]),
    "any case": (headers(("authorization", "bEaReR k")), ["k"]),
    "blanks around": (headers(("authorization", "  Bearer   k  ")), ["k"]),
    "X-API-Key": (headers(("x-api-key", " k ")), ["k"]),
    "both, Bearer first": (headers(("x-api-key", "a"), ("authorization", "Bearer b")), ["b", "a"]),
    "both alike": (headers(("x-api-key", "k"), ("authorization", "Bearer k")), ["k"]),
    "Basic is an empty credential": (headers(("authorization", "Basic eDp5")), [""]),
    "Bearer alone is an empty one": (headers(("authorization", "Bearer")), [""]),
    "an empty header too": (headers(("x-api-key", "")), [""]),
    "Basic spoils a right key": (headers(("authorization", "Basic x"), ("x-api-key", "k")), ["", "k"]),
}


@pytest.mark.parametrize("row", TABLE)
async def test_credentials_are_read(row: str) -> None:
    given, found = TABLE[row]
    assert credentials(given) == found


@pytest.mark.parametrize(
    "pairs",
    [
        (),
        (("authorization", "Bearer k"), ("authorization", "Bearer k")),
        (("x-api-key", "k"), ("x-api-key", "k")),
        (("authorization", "Bearer k"), ("x-api-key", "k"), ("x-api-key", "k")),
    ],
)
async def test_none_and_twice_are_refused(pairs: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidKey) as caught:
        credentials(headers(*pairs))
    assert caught.value.headers == (("www-authenticate", "Bearer"),)


class Watched(MemoryStore):
    """Counts its questions, and is down when told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = self.admitted = 0
        self.down: StoreDown | None = None

    async def find_key(self, digest: str) -> Key | None:
        self.asked += 1
        if self.down:
            raise self.down
        return await super().find_key(digest)

    async def admit(
        self, request: str, key: Key, cost: int, lease_until: int, now: int, bound: Bound | None = None
    ) -> Admission:
        self.admitted += 1
        if self.down:
            raise self.down
        return await super().admit(request, key, cost, lease_until, now, bound)


class Scene:
    def __init__(self) -> None:
        self.now: float = NOW
        self.store = Watched()
        self.gate = Gate(self.store, lambda: self.now, lease=660)
        self._requests: Iterator[str] = map(str, range(10**6))

    async def key(self, credits: int | None = 100, limits: Limits | None = None) -> str:
        key, opening = keys.new_key(), None if credits is None else Grant(credits)
        account = await self.store.create_account("", opening, NOW)
        await self.store.create_key(NewKey(keys.digest(key), account.id, limits=limits or Limits()), NOW)
        return key

    async def enter(self, key: str) -> Admission:
        record = await self.gate.authenticate(bearer(key))
        return await self.gate.admit(next(self._requests), record, 1)

    async def refusal(self, key: str) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.enter(key)
        return caught.value


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_key_is_looked_up_once_and_its_noise_never(scene: Scene) -> None:
    key = await scene.key()
    for _ in range(3):
        await scene.enter(key)
    assert scene.store.asked == 1
    for noise in ("", "sk-kg-", "sk-other", key[:-1], key + "x", key[:-1] + ("a" if key[-1] != "a" else "b")):
        assert isinstance(await scene.refusal(noise), InvalidKey)
    assert scene.store.asked == 1
    assert isinstance(await scene.refusal(keys.new_key()), InvalidKey)
    assert scene.store.asked == 2


async def test_both_credentials_must_be_right_and_bearer_wins(scene: Scene) -> None:
    first, second = await scene.key(), await scene.key()
    both = headers(("x-api-key", second), ("authorization", f"Bearer {first}"))
    assert (await scene.gate.authenticate(both)).digest == keys.digest(first)
    for pair in ((first, B), (A, second)):
        wrong = headers(("authorization", f"Bearer {pair[0]}"), ("x-api-key", pair[1]))
        with pytest.raises(InvalidKey):
            await scene.gate.authenticate(wrong)


async def test_a_stale_record_is_read_again_and_a_revoked_one_refused(scene: Scene) -> None:
    key, other = await scene.key(), keys.new_key()
    account = (await scene.gate.authenticate(bearer(key))).account
    await scene.store.create_key(NewKey(keys.digest(other), account), NOW)
    await scene.enter(other)
    await scene.store.revoke_key(keys.digest(other), NOW)
    assert (await scene.enter(key)).key.generation == 1
    assert isinstance(await scene.refusal(other), InvalidKey)
    assert isinstance(await scene.refusal(other), InvalidKey)


async def test_a_refusal_by_a_window_is_remembered_until_it_resets(scene: Scene) -> None:
    key = await scene.key(limits=Limits(minute=1))
    await scene.enter(key)
    for wait in (30, 30, 30):
        refused = await scene.refusal(key)
        assert isinstance(refused, RateLimited)
        assert refused.retry_after == wait
    assert scene.store.admitted == 2
    scene.now += 29.5
    assert (await scene.refusal(key)).retry_after == 1
    assert scene.store.admitted == 2
    scene.now += 0.5
    await scene.enter(key)
    assert scene.store.admitted == 3


async def test_it_is_remembered_for_half_a_minute_at_most(scene: Scene) -> None:
    key = await scene.key(limits=Limits(day=1))
    await scene.enter(key)
    await scene.refusal(key)
    scene.now += 29.9
    await scene.refusal(key)
    assert scene.store.admitted == 2
    scene.now += 0.2
    await scene.refusal(key)
    assert scene.store.admitted == 3


async def test_one_keys_refusal_is_not_anothers(scene: Scene) -> None:
    key, other = await scene.key(limits=Limits(minute=1)), await scene.key()
    await scene.enter(key)
    await scene.refusal(key)
    await scene.enter(other)


async def test_a_lack_of_credit_is_asked_anew_each_time(scene: Scene) -> None:
    key = await scene.key(credits=1)
    admission = await scene.enter(key)
    assert isinstance(await scene.refusal(key), InsufficientCredits)
    await scene.store.release(admission, "m", False, NOW)
    admission = await scene.enter(key)
    await scene.store.settle(admission, "m", Usage(), NOW)
    refused = await scene.refusal(key)
    assert (refused.status, refused.headers) == (403, (("x-credits-remaining", "0"),))


@pytest.mark.parametrize("down", [StoreDown("gone"), StoreThrottled("no more at present")])
async def test_a_store_that_is_down_or_throttled_lets_nobody_in(scene: Scene, down: StoreDown) -> None:
    key = await scene.key()
    await scene.enter(key)
    scene.store.down = down
    refused = await scene.refusal(key)
    assert isinstance(refused, Unavailable)
    assert (refused.retry_after, refused.cause) == (1, down.cause)
    assert isinstance(await scene.refusal(keys.new_key()), Unavailable)
    scene.store.down = None
    await scene.enter(key)


async def test_free_calls_read_the_record_anew_and_have_a_bucket(scene: Scene) -> None:
    key = await scene.key()
    for _ in range(60):
        await scene.gate.authenticate_free(bearer(key))
    assert scene.store.asked == 60
    with pytest.raises(RateLimited) as caught:
        await scene.gate.authenticate_free(bearer(key))
    assert caught.value.retry_after == 1
    await scene.gate.authenticate_free(bearer(await scene.key()))
    scene.now += 0.5
    await scene.gate.authenticate_free(bearer(key))
    await scene.store.revoke_key(keys.digest(key), NOW)
    scene.now += 1
    with pytest.raises(InvalidKey):
        await scene.gate.authenticate_free(bearer(key))


async def test_the_headers_show_what_is_left(scene: Scene) -> None:
    record = await scene.gate.authenticate(bearer(await scene.key()))
    admission = Admission(
        "r", record, 1, NOW, 41, Window(20, 3, NOW + 30), tokens=Window(900, 5, NOW + 30), asked=NOW
    )
    shown = {
        "x-ratelimit-limit": "20",
        "x-ratelimit-remaining": "3",
        "x-ratelimit-reset": str(NOW + 30),
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "900",
        "x-ratelimit-remaining-tokens": "5",
        "x-ratelimit-reset-tokens": "30s",
    }
    assert dict(admission_headers(admission)) == shown | {"x-credits-remaining": "41"}
    assert dict(admission_headers(admission, released=True)) == shown | {"x-credits-remaining": "42"}
    assert admission_headers(Admission("r", record, 0, NOW, None, None)) == []


CALLS = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 40)), max_size=60)


@given(calls=CALLS)
async def test_no_span_of_a_minute_holds_more_than_it_may(calls: list[tuple[str, float]]) -> None:
    recent, now, taken = SlidingWindow(most=3, seconds=60), 0.0, list[tuple[str, float]]()
    for name, gap in calls:
        now += gap
        if recent.take(name, now) == 0:
            taken.append((name, now))
    for name, start in taken:
        assert len([at for other, at in taken if other == name and start <= at < start + 60]) <= 3


@given(calls=CALLS)
async def test_a_bucket_gives_its_burst_and_its_rate_and_no_more(calls: list[tuple[str, float]]) -> None:
    buckets, now, taken = Buckets(rate=0.5, burst=4), 0.0, {"a": 0, "b": 0}
    for name, gap in calls:
        now += gap
        taken[name] += buckets.take(name, now) == 0
        assert taken[name] <= 4 + 0.5 * now + 1e-6


async def test_the_wait_that_is_reported_is_enough() -> None:
    recent, buckets = SlidingWindow(most=1, seconds=60), Buckets(rate=0.5, burst=1)
    for limiter in (recent, buckets):
        assert limiter.take("a", 0) == 0
        assert limiter.take("a", 1 + limiter.take("a", 1)) == 0


async def test_names_beyond_the_bound_push_the_oldest_out() -> None:
    recent, buckets = SlidingWindow(most=1, seconds=60, names=2), Buckets(rate=0.01, burst=1, most=2)
    for limiter in (recent, buckets):
        assert [limiter.take(name, 0) == 0 for name in "abab"] == [True, True, False, False]
        assert [limiter.take(name, 0) == 0 for name in "cb"] == [True, False]
        assert limiter.take("a", 0) == 0


async def test_a_suspended_key_is_refused_at_once_and_says_so(scene: Scene) -> None:
    key = await scene.key()
    await scene.enter(key)
    await scene.store.update_key(keys.digest(key), lambda old: replace(old, suspended=True), NOW)
    error = await scene.refusal(key)
    assert (error.status, "suspended" in error.message) == (401, True)
    with pytest.raises(InvalidKey, match="suspended"):
        await scene.gate.authenticate_free(bearer(key))
    await scene.store.update_key(keys.digest(key), lambda old: replace(old, suspended=False), NOW)
    await scene.enter(key)


async def test_a_key_expires_at_its_second_and_may_be_extended(scene: Scene) -> None:
    key = await scene.key()
    await scene.store.update_key(keys.digest(key), lambda old: replace(old, expires=NOW + 10), NOW)
    scene.now = NOW + 9.9
    await scene.enter(key)
    scene.now = NOW + 10
    error = await scene.refusal(key)
    assert (error.status, "expired on 2026-" in error.message) == (401, True), error.message
    await scene.store.update_key(keys.digest(key), lambda old: replace(old, expires=NOW + 20), NOW)
    await scene.enter(key)


async def test_both_secrets_work_until_the_overlap_ends(scene: Scene) -> None:
    old, new = await scene.key(), keys.new_key()
    await scene.enter(old)
    await scene.store.rotate_key(keys.digest(old), keys.digest(new), NOW + 10, NOW)
    for key in (old, new, old):
        await scene.enter(key)
    scene.now = NOW + 10
    await scene.enter(new)
    assert isinstance(await scene.refusal(old), InvalidKey)


async def test_models_are_those_that_the_key_may_use_now(scene: Scene) -> None:
    key = await scene.key()

    async def enter(*names: str) -> None:
        record = await scene.gate.authenticate(bearer(key))
        await scene.gate.admit(f"{names}{scene.store.admitted}", record, 1, names)

    async def only(*models: str) -> None:
        await scene.store.update_key(keys.digest(key), lambda old: replace(old, models=models), NOW)

    await enter("kimi-k3", "kimi-k3")
    await only("kimi-k2*", "fast")
    for refused in (("kimi-k3", "kimi-k3"), ("kimi-k3", "other")):
        with pytest.raises(PermissionDenied, match=r"may use: kimi-k2\*, fast"):
            await enter(*refused)
    await enter("kimi-k2.6", "kimi-k2.6")
    await enter("kimi-k3", "fast")
    await only()
    await enter("kimi-k3", "kimi-k3")
    assert (await scene.store.account(keys.digest(key), NOW)).reserved == 4
