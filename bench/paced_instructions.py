"""Instructions of one chunk that comes alone, counted by callgrind: gateway or relay on real sockets.

Upstream and client are in the same loop; the upstream sends the next chunk when the client has the last one.
Needs valgrind. The driver's own part is counted too (`--target none`, where the client asks the upstream).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from instructions import INPUT, counted, events

FEW, MANY = 50, 450  # chunks; the difference leaves out all but the chunks


class Upstream(asyncio.Protocol):
    """`pieces` of an answer are sent one by one by `go_on`, when a request has begun."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"POST"):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            Client.go_on = self.go_on
            self.go_on()
        else:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def go_on(self) -> None:
        piece = next(self._pieces, b"")
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


class Client(asyncio.Protocol):
    go_on: Any = None

    def __init__(self) -> None:
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"0\r\n\r\n"):
            self.done.set_result(None)
        elif data.endswith(b"\n\n\r\n"):
            Client.go_on()


async def run(target: str, chunks: int, path: str) -> None:
    loop = asyncio.get_running_loop()
    whole = events(chunks).split(b"\n\n")
    pieces = [whole[0] + b"\n\n" + whole[1] + b"\n\n", *[event + b"\n\n" for event in whole[2:-3]]]
    pieces.append(b"\n\n".join(whole[-3:]))
    server = await loop.create_server(lambda: Upstream(pieces), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key, app = "none", None
    if target == "gateway":
        key, app, server = await gateway(port)
    elif target == "relay":
        import relay

        pool: list[relay.Upstream] = []
        server = await loop.create_server(
            lambda: relay.Client(pool, "127.0.0.1", port, b"/v1"), "127.0.0.1", 0
        )
    transport, client = await loop.create_connection(Client, "127.0.0.1", server.sockets[0].getsockname()[1])
    body = json.dumps({"model": "kimi-k3", "stream": True, **INPUT[path]}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
    transport.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    await asyncio.wait_for(client.done, 300)
    if app is not None:
        await app.stop()


async def gateway(port: int) -> tuple[str, Any, asyncio.Server]:
    from kimi_gateway.accounts import keys
    from kimi_gateway.accounts.values import Limits, NewKey
    from kimi_gateway.edge.home.asgi import App
    from kimi_gateway.edge.home.protocol import Protocol
    from kimi_gateway.settings import Settings

    home = Path(tempfile.mkdtemp(prefix="kimi-paced-"))
    app = App(
        Settings(data=home, base_url=f"http://127.0.0.1:{port}/v1", moonshot_api_key=("sk-upstream-1",))
    )
    await app.start()
    assert app.running is not None  # noqa: S101
    key, store = keys.new_key(), app.running.store
    account = await store.create_account("", None, 1)
    await store.create_key(NewKey(keys.digest(key), account.id, "", Limits()), 1)
    config = SimpleNamespace(loaded_app=app, timeout_keep_alive=30)
    state = SimpleNamespace(connections=set(), tasks=set(), total_requests=0, default_headers=[])
    loop = asyncio.get_running_loop()
    return key, app, await loop.create_server(lambda: Protocol(config, state, None), "127.0.0.1", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=("gateway", "relay", "none"), default="gateway")
    parser.add_argument("--path", choices=INPUT, default="/v1/chat/completions")
    parser.add_argument("--chunks", type=int, help="send so many chunks and count nothing")
    given = parser.parse_args()
    if given.chunks is not None:
        return asyncio.run(run(given.target, given.chunks, given.path))
    shape = ("--target", given.target, "--path", given.path)
    few, many = (counted(__file__, *shape, "--chunks", str(number)) for number in (FEW, MANY))
    print(f"{' '.join(shape)}: {(many - few) / (MANY - FEW) / 1e3:.1f} k instructions a chunk")


if __name__ == "__main__":
    main()
