"""Files at the provider: what the gateway remembers of each, so that it is found, counted and deleted."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, Protocol

from kimi_gateway.accounts.values import NEVER
from kimi_gateway.dataclass import dataclass

Kind = Literal["kept", "shared", "passing"]
State = Literal["uploading", "ready", "failed", "deleting"]

LONGEST_NAME = 200  # characters of a file name
MOST_FILES = 500  # kept files of one account; DynamoDB holds them in one item (storage/dynamodb/files.py)
_SINCE = "deletion fails since "
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file at the provider. It is written before the upload, so that a crash leaves no unknown file.

    `kind`: a `kept` file is the account's own and lives until `expires`; a `passing` one belongs to a turn. A
    `shared` one was uploaded for a turn, and the account's later turns use it too; its `filename` is the name
    of its content (files/shared.py), empty until the upload is complete.
    From `expires` on any process may delete the file and this record; a file in the state `deleting` has an
    `expires` that has come. `token` is the id of the upstream token
    whose account has the file. `upstream` is the provider's id, empty until the upload was answered; the
    provider's name of the file begins with `id`. `filename`, `media_type` and `purpose` are the client's;
    `uploaded_as` is the purpose of its upload at the provider, which decides how the file can be used. It is
    empty in records from before 2026-11-28. Times are in unix seconds, `size` is in bytes.
    """

    id: str
    account: str
    token: str
    kind: Kind
    created: int
    expires: int = NEVER
    state: State = "uploading"
    upstream: str = ""
    filename: str = ""
    size: int = 0
    media_type: str = ""
    purpose: str = ""
    detail: str = ""
    uploaded_as: str = ""

    def live(self, now: int) -> bool:
        """Whether its account may still use it."""
        return self.expires > now and self.state != "deleting"

    def abandoned(self) -> FileRecord:
        """The same after its account was deleted: due at once, or when an upload that runs surely ended."""
        return replace(self, state="deleting", expires=self.expires if self.state == "uploading" else 0)

    def postponed(self, until: int, now: int) -> FileRecord:
        """The same after a deletion that failed. Since when that is so is in its `detail`."""
        detail = self.detail if self.failing_since(now) < now else f"{_SINCE}{now}"
        return replace(self, state="deleting", expires=until, detail=detail)

    def failing_since(self, now: int) -> int:
        """The second of the first deletion that failed; `now` if none has."""
        since = self.detail.removeprefix(_SINCE)
        return int(since) if self.state == "deleting" and since.isdigit() else now


@dataclass(frozen=True, slots=True)
class Room:
    """The room for the files of one kind that one account has: their number, and their total bytes."""

    files: int = 100
    size: int = 2**30


class NoRoom(Exception):
    """The account's files of this kind would be more than its room; nothing was written. `files` and `size`
    are those it has."""

    def __init__(self, files: int, size: int) -> None:
        super().__init__(f"{files} files with {size} bytes")
        self.files = files
        self.size = size


class FileStore(Protocol):
    """Records of files. Every method is atomic and raises StoreDown. Another account's files are unknown."""

    async def add_file(self, record: FileRecord, room: Room) -> None:
        """A new record. Raises NoRoom, but not for a passing one. Repeating a call changes nothing."""
        ...

    async def change_file(self, old: FileRecord, new: FileRecord, room: Room) -> bool:
        """Replace a record of the same id, account and kind. False if it is gone, or is no longer `old`.
        Raises NoRoom if a file that is not passing has grown beyond the bytes of the room."""
        ...

    async def remove_file(self, record: FileRecord) -> bool:
        """Forget it. Only `id`, `account`, `kind` and `expires` of `record` count. False if it is gone."""
        ...

    async def file(self, account: str, id: str, now: int) -> FileRecord | None:
        """A kept file that is live."""
        ...

    async def files(self, account: str, now: int) -> list[FileRecord]:
        """The live kept files, in the order of their creation."""
        ...

    async def shared_files(self, account: str, now: int) -> list[FileRecord]:
        """The live shared files, in the order of their creation."""
        ...

    async def due_files(self, now: int, most: int) -> list[FileRecord]:
        """Records of all accounts whose `expires` has come, the earliest first, at most `most`."""
        ...


def file_id(now: int, below: Callable[[int], int] = secrets.randbelow) -> str:
    """`file-` with the second of its creation and 75 random bits."""
    word = "".join(_DIGITS[below(36)] for _ in range(15))
    return f"file-{_base36(now)}{word}"


def _base36(value: int) -> str:
    digits = ""
    while value:
        value, digit = divmod(value, 36)
        digits = _DIGITS[digit] + digits
    return digits


def in_order(records: Iterable[FileRecord]) -> list[FileRecord]:
    return sorted(records, key=lambda record: (record.created, record.id))


def check_room(record: FileRecord, files: int, size: int, room: Room) -> None:
    """`files` and `size` are those of the account's other files of this kind. Raises NoRoom."""
    if record.kind != "passing" and (files >= room.files or size + record.size > room.size):
        raise NoRoom(files, size)
