"""CPU of one request's two calls to DynamoDB, admission and settlement: the gateway's store over its own
client beside boto3 with the same two updates. Medians of interleaved rounds; another process gives a constant
answer with ten requests in flight, so that the client's cost alone is seen.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import boto3
from botocore.config import Config

from kimi_gateway.accounts.values import Key, Usage
from kimi_gateway.net.aws import Aws
from kimi_gateway.net.http import Answer, Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.net.sigv4 import Credentials
from kimi_gateway.storage.dynamodb import tally
from kimi_gateway.storage.dynamodb.item import window_names
from kimi_gateway.storage.dynamodb.store import DynamoStore

ROUNDS, PAIRS = 15, 200
NOW = 1_800_000_000
REGION, FAKE = "eu-central-1", Credentials("AKIDEXAMPLE", "wJalrXUtnFEMIexampleKEY")
KEY = Key("key_abcdefghij", "digest", "acc_abcdefghij")
USED = tally.name_of(NOW, KEY.id, "kimi-k3")
ITEM = {
    "pk": {"S": "A#acc_abcdefghij"}, "sk": {"S": "-"}, "b": {"N": "19990"}, "c": {"N": "10"}, "x": {"N": "0"},
    "kg": {"N": "0"}, "ks": {"SS": ["ab"]}, "gr": {"S": "9999999999:20000"}, "gx": {"N": "9999999999"},
    "f": {"N": "0"}, f"q{USED}": {"N": "100000001000000000"}, f"l{USED}": {"N": "17"},
    f"t{USED}": {"N": "1200000000000340"},
    **{name: {"N": "10"} for name in window_names(KEY, NOW, False)},
    **{f"rAAAAAA{number:02}": {"N": "11800000660"} for number in range(10)},
}  # fmt: skip


class Sent(Http1Client):
    """Keeps the last two bodies, for boto3 to send."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        self.bodies = [*self.bodies[-1:], body]
        return super().send(method, url, headers, body, timeouts)


async def serve() -> None:
    body = json.dumps({"Attributes": ITEM}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: %d\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                sent = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(sent.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                writer.write(head % len(body) + body)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def cpu(step: Callable[[], Any]) -> float:
    """Microseconds a pair."""
    start = time.process_time()
    step()
    return (time.process_time() - start) / PAIRS * 1e6


def measure(url: str) -> None:
    runner, client = asyncio.Runner(), Sent()
    store = DynamoStore("kimi-gateway", Aws(client, REGION, lambda: FAKE, lambda service: url))

    async def ours() -> None:
        for number in range(PAIRS):
            admission = await store.admit(f"r{number}", KEY, 1, NOW + 660, NOW)
            await store.settle(admission, "kimi-k3", Usage(120, 34), NOW)

    runner.run(ours())
    updates = [json.loads(body) for body in client.bodies]
    config = Config(retries={"max_attempts": 1})
    secrets = {"aws_access_key_id": FAKE.access_key, "aws_secret_access_key": FAKE.secret_key}
    dynamodb = boto3.client("dynamodb", REGION, endpoint_url=url, config=config, **secrets)

    def theirs() -> None:
        for _ in range(PAIRS):
            for update in updates:
                dynamodb.update_item(**update)

    theirs()
    pairs = [(cpu(lambda: runner.run(ours())), cpu(theirs)) for _ in range(ROUNDS)]
    own, boto = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"store over its own client {own:.0f} µs, boto3 {boto:.0f} µs a request: {boto / own:.1f} times")
    runner.run(client.close())


if __name__ == "__main__":
    if "serve" in sys.argv:
        asyncio.run(serve())
    else:
        command = [sys.executable, __file__, "serve"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
            assert server.stdout is not None  # noqa: S101
            measure(f"http://127.0.0.1:{int(server.stdout.readline())}/")
            server.kill()
