"""Objects of one S3 bucket, through presigned URLs, so that a client can send a file without the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kimi_gateway.net.aws import Aws, AwsDown, Patience
from kimi_gateway.net.http import Answer, Client, NetError

OWN = 60  # seconds for which the gateway's own URLs are valid


class NoObject(Exception):
    """The bucket has no object with this key."""


class Bucket:
    """Keys must need no escaping. Every method raises AwsDown."""

    def __init__(self, aws: Aws, client: Client, name: str) -> None:
        self._aws = aws
        self._client = client
        self._name = name

    async def address(self, key: str, size: int, seconds: int) -> str:
        """A URL that takes a PUT of exactly `size` bytes within `seconds`: S3 refuses another length, because
        it is signed."""
        headers = {"content-length": str(size)}
        return await self._aws.presigned("PUT", self._name, key, headers, seconds)

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[Answer]:
        """The object as it comes. Raises NoObject."""
        url = await self._aws.presigned("GET", self._name, key, {}, OWN)
        try:
            async with self._client.send("GET", url, {}, b"", Patience().each) as answer:
                if answer.status in (403, 404):  # 403 says the same to who may not list the bucket
                    raise NoObject(key)
                if answer.status != 200:
                    raise AwsDown(f"GetObject: status {answer.status}")
                yield answer
        except NetError as error:
            raise AwsDown(f"GetObject: {error}") from error

    async def delete(self, key: str) -> None:
        """Delete the object, if it exists."""
        url = await self._aws.presigned("DELETE", self._name, key, {}, OWN)
        try:
            async with self._client.send("DELETE", url, {}, b"", Patience().each) as answer:
                if answer.status not in (200, 204, 404):
                    raise AwsDown(f"DeleteObject: status {answer.status}")
        except NetError as error:
            raise AwsDown(f"DeleteObject: {error}") from error
