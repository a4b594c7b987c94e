"""Run as a program in a network namespace where every address is this machine's: fetches hostile URLs, and
prints the number of connections that canaries on all addresses saw, then those of two public addresses."""

from __future__ import annotations

import asyncio
import json
import sys

from kimi_gateway.net.fetch.fetcher import Bounds, Fetcher, FetchFailed
from support.fetching import Names, plain
from support.hostile_urls import PRIVATE_4, PRIVATE_6, SPELLINGS

PORT = 80
HELLO = b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n"
HOSTS = [*PRIVATE_4, *(f"[{each}]" for each in PRIVATE_6)]
NAMED = [[each] for each in (*PRIVATE_4, *PRIVATE_6)] + [["8.8.8.8", each] for each in PRIVATE_4]


async def main() -> None:
    seen: list[str] = []

    async def canary(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(str(writer.get_extra_info("sockname")[0]))
        writer.write(HELLO)
        writer.close()

    servers = [await asyncio.start_server(canary, host, PORT) for host in ("0.0.0.0", "::")]  # noqa: S104
    table = {f"name{number}_example": [addresses] for number, addresses in enumerate(NAMED)}
    fetcher = plain(resolver=Names(**table, localhost=[["127.0.0.1", "::1"]], good_example=[["10.0.0.1"]]))
    for host in HOSTS:
        await refused(fetcher, f"http://{host}/")
    for spelling in SPELLINGS:
        await refused(fetcher, spelling.replace("PORT", str(PORT)))
    for number in range(len(NAMED)):
        await refused(fetcher, f"http://name{number}.example/")
    hostile = len(seen)
    for public in ("8.8.8.8", "[2606:4700:4700::1111]"):  # the canary sends both on to a private one
        await refused(fetcher, f"http://{public}/")
    urls = len(HOSTS) + len(SPELLINGS) + len(NAMED)
    print(json.dumps({"urls": urls, "hostile": hostile, "public": seen[hostile:]}))
    for server in servers:
        server.close()
    await fetcher.close()


async def refused(fetcher: Fetcher, url: str) -> None:
    try:
        await fetcher.fetch(url, Bounds(size=10, seconds=5))
    except FetchFailed:
        return
    sys.exit(f"fetched: {url!r}")


asyncio.run(main())
