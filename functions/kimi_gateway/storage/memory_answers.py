"""The executable specification of a store of kept answers."""

from __future__ import annotations

from dataclasses import replace

from kimi_gateway.storage.answers import MOST, MOST_OF_ACCOUNT, Claim


class MemoryAnswers:
    """`most_of_account` and `most` are in bytes."""

    def __init__(self, most_of_account: int = MOST_OF_ACCOUNT, most: int = MOST) -> None:
        self._most_of_account = most_of_account
        self._most = most
        self._claims: dict[tuple[str, str], Claim] = {}

    async def claim_answer(self, account: str, name: str, claim: Claim, now: int) -> Claim | None:
        held = await self.find_answer(account, name, now)
        if held is not None and (held.done or held.owner != claim.owner):
            return held
        self._claims[account, name] = claim
        return None

    async def find_answer(self, account: str, name: str, now: int) -> Claim | None:
        held = self._claims.get((account, name))
        return held if held is not None and held.until > now else None

    async def renew_claim(self, account: str, name: str, owner: str, until: int) -> None:
        if held := self._running(account, name, owner):
            self._claims[account, name] = replace(held, until=max(held.until, until))

    async def keep_answer(
        self, account: str, name: str, owner: str, answer: bytes | None, until: int
    ) -> bool:
        held = self._claims.get((account, name))
        if held is None or held.owner != owner:
            return False
        if not held.done:
            self._claims[account, name] = replace(held, done=True, answer=answer, until=until)
            self._shrink([at for at in self._claims if at[0] == account], self._most_of_account)
            self._shrink(list(self._claims), self._most)
        return True

    async def drop_claim(self, account: str, name: str, owner: str) -> None:
        if self._running(account, name, owner):
            del self._claims[account, name]

    def purge(self, now: int) -> None:
        self._claims = {at: claim for at, claim in self._claims.items() if claim.until > now}

    def end(self, account: str) -> None:
        """Forget all of an account that is deleted."""
        self._claims = {at: claim for at, claim in self._claims.items() if at[0] != account}

    def _running(self, account: str, name: str, owner: str) -> Claim | None:
        held = self._claims.get((account, name))
        return held if held is not None and held.owner == owner and not held.done else None

    def _shrink(self, names: list[tuple[str, str]], most: int) -> None:
        total = 0
        for at in sorted(names, key=lambda at: self._claims[at].until, reverse=True):
            total += len(self._claims[at].answer or b"")
            if total > most:
                self._claims[at] = replace(self._claims[at], answer=None)
