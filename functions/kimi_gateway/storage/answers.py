"""Answers that are kept for a repeated request with the same `Idempotency-Key`, and the claims of requests
that run."""

from __future__ import annotations

from dataclasses import field
from typing import Protocol

from kimi_gateway.dataclass import dataclass

MOST_OF_ACCOUNT = 64 * 2**20  # bytes, in a store that must bound itself
MOST = 512 * 2**20  # bytes of all accounts, there


@dataclass(frozen=True, slots=True)
class Claim:
    """The request that has a name. It runs until `done`.

    `fingerprint`: a hash of what was asked. `owner`: who runs it. `until`: the unix second at which the claim
    or the kept answer ends. `answer`: None if it runs, or if its answer was not kept.
    """

    fingerprint: str
    owner: str
    until: int
    done: bool = False
    answer: bytes | None = field(default=None, repr=False)


class AnswerStore(Protocol):
    """Claims by account and name. Every method is atomic and may be repeated; all raise StoreDown."""

    async def claim_answer(self, account: str, name: str, claim: Claim, now: int) -> Claim | None:
        """Claim a name that nobody has, or whose claim has ended. None if `claim` has it now, else who has
        it."""
        ...

    async def find_answer(self, account: str, name: str, now: int) -> Claim | None:
        """Who has the name."""
        ...

    async def renew_claim(self, account: str, name: str, owner: str, until: int) -> None:
        """Let a request run until then; only if the name is still its own."""
        ...

    async def keep_answer(
        self, account: str, name: str, owner: str, answer: bytes | None, until: int
    ) -> bool:
        """The request is done. Without an `answer` only that is kept. The first call counts. False if the
        name is another's. A bounded store forgets its oldest answers, but not that they were given."""
        ...

    async def drop_claim(self, account: str, name: str, owner: str) -> None:
        """Free the name, unless its request is done or it is another's."""
        ...
