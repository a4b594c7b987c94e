"""The executable specification of a store of file records, beside batches."""

from __future__ import annotations

from kimi_gateway.accounts.files import FileRecord, Kind, Room, check_room, in_order
from kimi_gateway.storage.answers import AnswerStore
from kimi_gateway.storage.memory_answers import MemoryAnswers
from kimi_gateway.storage.memory_batches import MemoryBatches


class MemoryFiles(MemoryBatches):
    def __init__(self) -> None:
        super().__init__()
        self._files: dict[tuple[str, str], FileRecord] = {}  # by account and id
        self._answers = MemoryAnswers()

    def answers(self) -> AnswerStore:
        return self._answers

    async def add_file(self, record: FileRecord, room: Room) -> None:
        if (record.account, record.id) not in self._files:
            others = self._all(record.account, record.kind)
            check_room(record, len(others), sum(each.size for each in others), room)
            self._files[record.account, record.id] = record

    async def change_file(self, old: FileRecord, new: FileRecord, room: Room) -> bool:
        if self._files.get((old.account, old.id)) != old:
            return False
        if new.size > old.size:
            others = sum(each.size for each in self._all(old.account, old.kind) if each.id != old.id)
            check_room(new, 0, others, room)
        self._files[new.account, new.id] = new
        return True

    async def remove_file(self, record: FileRecord) -> bool:
        return self._files.pop((record.account, record.id), None) is not None

    async def file(self, account: str, id: str, now: int) -> FileRecord | None:
        record = self._files.get((account, id))
        return record if record and record.kind == "kept" and record.live(now) else None

    async def files(self, account: str, now: int) -> list[FileRecord]:
        return in_order(record for record in self._all(account, "kept") if record.live(now))

    async def shared_files(self, account: str, now: int) -> list[FileRecord]:
        return in_order(record for record in self._all(account, "shared") if record.live(now))

    async def due_files(self, now: int, most: int) -> list[FileRecord]:
        due = [record for record in self._files.values() if record.expires <= now]
        return sorted(due, key=lambda record: (record.expires, record.id))[:most]

    def leave(self, account: str) -> None:
        """The account is deleted. Passing files end with their turns."""
        super().leave(account)
        self._answers.end(account)
        for kind in ("kept", "shared"):
            for each in self._all(account, kind):
                self._files[account, each.id] = each.abandoned()

    def _all(self, account: str, kind: Kind) -> list[FileRecord]:
        return [each for each in self._files.values() if each.account == account and each.kind == kind]
