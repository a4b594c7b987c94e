"""One DynamoDB table with the operations of the store. A failed condition raises Conflict, not StoreDown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.accounts.store import StoreDown, StoreThrottled
from kimi_gateway.dataclass import dataclass
from kimi_gateway.net.aws import DYNAMODB, Aws, AwsError, AwsRefused, AwsThrottled
from kimi_gateway.storage.dynamodb.item import Raw

TOGETHER = 20  # items in one BatchGetItem; net.aws accepts this many of the largest entries (cache.LARGEST)
DELETED = 25  # items that are deleted at a time
FRUITLESS = 5  # answers of one `get_many` that process no key; then the table counts as throttled
FAILED = "ConditionalCheckFailedException"


class Conflict(Exception):
    """The condition failed; `item` is the item as it is, None if there is none."""

    def __init__(self, item: Raw | None) -> None:
        super().__init__("condition failed")
        self.item = item


@dataclass(slots=True)
class Change:
    """The parts of one UpdateItem; `names` and `values` define the placeholders of the texts."""

    sets: list[str] = field(default_factory=list)
    adds: list[str] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def expressions(self) -> dict[str, Any]:
        clauses = {"SET": self.sets, "ADD": self.adds, "DELETE": self.deletes, "REMOVE": self.removes}
        written = [f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts]
        made: dict[str, Any] = {"UpdateExpression": " ".join(written)}
        if self.conditions:
            made["ConditionExpression"] = " AND ".join(self.conditions)
        if self.names:
            made["ExpressionAttributeNames"] = self.names
        if self.values:
            made["ExpressionAttributeValues"] = self.values
        return made


class Table:
    """Reads are consistent. Every method raises StoreDown or StoreThrottled."""

    def __init__(self, name: str, aws: Aws) -> None:
        self._name = name
        self._aws = aws

    async def get(self, pk: str, sk: str = "-") -> Raw | None:
        answer = await self._call("GetItem", {"Key": _key(pk, sk), "ConsistentRead": True})
        item: Raw | None = answer.get("Item")
        return item

    async def get_many(self, pk: str, sort_keys: Sequence[str]) -> list[Raw]:
        """The items that exist, in any order. Unprocessed keys are asked for again, after a pause if none was
        processed. Raises StoreThrottled after FRUITLESS such answers."""
        waiting = [_key(pk, sk) for sk in dict.fromkeys(sort_keys)]
        items: list[Raw] = []
        fruitless = 0
        while waiting:
            some, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
            asked = {"RequestItems": {self._name: {"Keys": some, "ConsistentRead": True}}}
            answer = await self._sent("BatchGetItem", asked)
            items += answer.get("Responses", {}).get(self._name, [])
            left = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", [])
            waiting += left
            if len(left) >= len(some):
                fruitless += 1
                if fruitless == FRUITLESS:
                    raise StoreThrottled(f"BatchGetItem: {fruitless} answers processed no key")
                await self._aws.pause(fruitless)
        return items

    async def query(
        self, pk: str, first: str = "", before: str = "", most: int = 0, keys_only: bool = False
    ) -> list[Raw]:
        """The items of one partition, from the sort key `first` on, those `before` another, or the first
        `most`; give one of the two keys at most. `keys_only`: of each item only the sort key."""
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if first or before:
            condition = f"{condition} AND sk {'>=' if first else '<'} :sk"
            values = {**values, ":sk": {"S": first or before}}
        request: dict[str, Any] = {
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ConsistentRead": True,
        }
        if most:
            request["Limit"] = most
        if keys_only:
            request["ProjectionExpression"] = "sk"
        items: list[Raw] = []
        while True:
            answer = await self._call("Query", request)
            items += answer.get("Items", [])
            if "LastEvaluatedKey" not in answer or 0 < most <= len(items):
                return items
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def put(self, pk: str, sk: str, item: Raw) -> None:
        await self._call("PutItem", {"Item": {**_key(pk, sk), **item}})

    async def put_new(self, pk: str, sk: str, item: Raw, mark: str) -> None:
        """Create the item; an item with our `mark` is our own earlier write. Raises Conflict if another one
        exists."""
        await self._conditional(
            "PutItem",
            pk,
            sk,
            {
                "Item": {**_key(pk, sk), **item},
                "ConditionExpression": "attribute_not_exists(pk) OR #mark = :mark",
                "ExpressionAttributeNames": {"#mark": mark},
                "ExpressionAttributeValues": {":mark": item[mark]},
            },
        )

    async def update(self, pk: str, sk: str, change: Change) -> Raw:
        """Change the item and return its new state. Raises Conflict."""
        request = {"Key": _key(pk, sk), "ReturnValues": "ALL_NEW", **change.expressions()}
        answer = await self._conditional("UpdateItem", pk, sk, request)
        item: Raw = answer["Attributes"]
        return item

    async def delete(self, pk: str, sk: str) -> None:
        await self._call("DeleteItem", {"Key": _key(pk, sk)})

    async def delete_all(self, pk: str) -> None:
        """Delete the items of one partition. A call that broke off may be repeated."""
        names = [item["sk"]["S"] for item in await self.query(pk, keys_only=True)]
        await self.delete_many(pk, names)

    async def delete_many(self, pk: str, sort_keys: Sequence[str]) -> None:
        """At most DELETED deletions run at a time."""
        for start in range(0, len(sort_keys), DELETED):
            await asyncio.gather(*(self.delete(pk, sk) for sk in sort_keys[start : start + DELETED]))

    async def _conditional(self, operation: str, pk: str, sk: str, request: dict[str, Any]) -> dict[str, Any]:
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        try:
            return await self._aws.call(DYNAMODB, operation, {"TableName": self._name, **request})
        except AwsRefused as refused:
            if refused.code != FAILED:
                raise StoreDown(str(refused)) from refused
            item: Raw | None = refused.detail.get("Item")
        except AwsError as error:
            raise _down(error) from error
        # A missing item has no image. Dynalite, which the tests use, returns none either.
        raise Conflict(await self.get(pk, sk) if item is None else item)

    async def _call(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return await self._sent(operation, {"TableName": self._name, **request})

    async def _sent(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._aws.call(DYNAMODB, operation, request)
        except AwsError as error:
            raise _down(error) from error


def _down(error: AwsError) -> StoreDown:
    return (StoreThrottled if isinstance(error, AwsThrottled) else StoreDown)(str(error))


def _key(pk: str, sk: str) -> Raw:
    return {"pk": {"S": pk}, "sk": {"S": sk}}
