"""Records of the batches that users run at the provider, by which they are found, shown and booked."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import astuple, fields, replace
from typing import Any, Protocol

from kimi_gateway.accounts.files import file_id
from kimi_gateway.accounts.values import NEVER, Admission, Key
from kimi_gateway.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch. It is written before the provider is asked, so that no batch runs that nobody books.

    `key` is the id of the key that made it. `token` is the id of the upstream token whose account runs it.
    `upstream` is the provider's id, empty until that is known. `input`, `output` and `errors` are the
    gateway's ids of its files. `window` (such as 24h) and `metadata` (JSON) are the client's. `told` is the
    provider's last answer as JSON, without ids. `lease`: the end of the lease under which its use is booked.
    `due`: when the gateway looks at the batch next, NEVER after it was booked. From `expires` on the record
    may be forgotten. `read`: how far its output was read and counted (endpoints/batches/tally.py).
    `gone`: its account was deleted, so it is cancelled and forgotten. Times are in unix seconds.
    """

    id: str
    account: str
    key: str
    token: str
    created: int
    input: str
    window: str
    lease: int
    due: int
    expires: int = NEVER
    upstream: str = ""
    output: str = ""
    errors: str = ""
    metadata: str = "{}"
    told: str = "{}"
    read: str = ""
    gone: bool = False

    @property
    def booked(self) -> bool:
        return self.due >= NEVER

    @property
    def state(self) -> dict[str, Any]:
        """The provider's last answer."""
        told: dict[str, Any] = json.loads(self.told)
        return told

    def admission(self) -> Admission:
        """The admission of its lease, which settles or releases it."""
        key = Key(self.key, "", self.account)
        return Admission(self.id, key, 0, self.lease, None, None)

    def abandoned(self) -> BatchRecord:
        """The same after its account was deleted: due at once."""
        return replace(self, gone=True, due=0)


_FIRST = 15  # fields of the first release
_FIELDS = fields(BatchRecord)


class TooManyBatches(ValueError):
    """The account runs as many batches as it may; nothing was written. `running` is their number."""

    def __init__(self, running: int) -> None:
        super().__init__(f"{running} batches run")
        self.running = running


class BatchStore(Protocol):
    """Records of batches. Every method is atomic and raises StoreDown. Another account's are unknown."""

    async def add_batch(self, record: BatchRecord, most: int) -> None:
        """A new record. Raises TooManyBatches if `most` of the account are not booked, however many are added
        at once. Repeating a call changes nothing."""
        ...

    async def change_batch(self, old: BatchRecord, new: BatchRecord) -> bool:
        """Replace a record of the same id and account. False if it is gone, or is no longer `old`."""
        ...

    async def remove_batch(self, record: BatchRecord) -> None:
        """Forget it, whatever became of it."""
        ...

    async def batch(self, account: str, id: str, now: int) -> BatchRecord | None:
        """A batch that has not expired."""
        ...

    async def batches(self, account: str, now: int) -> list[BatchRecord]:
        """All that have not expired, in the order of their creation."""
        ...

    async def due_batches(self, now: int, most: int) -> list[BatchRecord]:
        """Records of all accounts whose `due` has come, at most `most`. Also forgets expired ones."""
        ...


def batch_id(now: int, below: Callable[[int], int] = secrets.randbelow) -> str:
    """`batch_` with the second of its creation and random bits; ids sort by their time."""
    return file_id(now, below).replace("file-", "batch_", 1)


def began(id: str) -> int:
    """The second in the id of a batch, NEVER if it has none."""
    try:
        return int(id.removeprefix("batch_")[:-15], 36)
    except ValueError:
        return NEVER


def in_order(records: list[BatchRecord]) -> list[BatchRecord]:
    return sorted(records, key=lambda record: (record.created, record.id))


def text_of(record: BatchRecord) -> str:
    """Later fields with their defaults are left out, so the text is that of earlier releases."""
    values = list(astuple(record))
    while len(values) > _FIRST and values[-1] == _FIELDS[len(values) - 1].default:
        values.pop()
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def record_of(text: str) -> BatchRecord:
    """A later release may have added fields at the end."""
    return BatchRecord(*json.loads(text)[: len(_FIELDS)])
