"""The position of an output item, and its events. Events are numbered when they are sent."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass

Event = dict[str, Any]


class Deltas(list[str]):
    """The `delta` of an event that stands for several events, which differ in it and in their number only."""


@dataclass(frozen=True, slots=True)
class Place:
    """`index` is the item's `output_index`; `events` is the common list of all items of an answer."""

    id: str
    index: int
    events: list[Event] = field(repr=False)

    def tell(self, kind: str, **members: Any) -> None:
        self.events.append(
            {"type": f"response.{kind}", "item_id": self.id, "output_index": self.index, **members}
        )

    def added(self, item: dict[str, Any]) -> None:
        self._whole("added", item)

    def done(self, item: dict[str, Any]) -> None:
        self._whole("done", item)

    def _whole(self, what: str, item: dict[str, Any]) -> None:
        self.events.append({"type": f"response.output_item.{what}", "output_index": self.index, "item": item})
