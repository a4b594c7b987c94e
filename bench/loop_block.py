"""How long one request holds the loop: each case of a corpus alone, beside a client that asks GET /ping
without end. The number is the longest wait of a ping while the case ran, and the least of several rounds,
because a busy machine only adds. Bars: 50 ms at 1 MB of body, 500 ms at the largest body, 250 ms for an
upstream event of 8 MiB. Everything stays on loopback, in processes of its own that end with the run.
Results: docs/reliability.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from load import connect
from loop_corpus import CASES, Case, kept_answers, posted
from processes import Process, free_port, shares, unwind_on_signals
from targets import GATEWAY, Target, environment, gateway

HERE = Path(__file__).parent
LONGEST = 60.0  # seconds that a case may take
MARK = b'"case:'


@dataclass(frozen=True, slots=True)
class Result:
    """Milliseconds: the longest wait of a ping, the case's own time; `status` of its answer."""

    name: str
    size: int
    bar: float
    worst: float
    took: float
    status: int


async def pinging(port: int, waits: list[tuple[float, float]], done: asyncio.Event) -> None:
    """Asks one after the other; a wait is when it began and how long it was, in seconds."""
    message = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not done.is_set():
        begun = time.perf_counter()
        writer.write(message)
        await reader.readuntil(b"pong")
        waits.append((begun, time.perf_counter() - begun))
        await asyncio.sleep(0.0005)
    writer.close()


async def measure(port: int, key: str, case: Case, rounds: int) -> Result:
    body = case.body()
    message = posted(port, key, case.path, body)
    best, took, status = float("inf"), 0.0, 0
    for _ in range(rounds):
        waits: list[tuple[float, float]] = []
        done = asyncio.Event()
        ping = asyncio.create_task(pinging(port, waits, done))
        await asyncio.sleep(0.05)
        connection = await connect(port)
        begun = time.perf_counter()
        answer = await asyncio.wait_for(connection.ask(message), LONGEST)
        ended = time.perf_counter()
        connection.close()
        await asyncio.sleep(0.02)
        done.set()
        await ping
        during = [wait for at, wait in waits if at + wait > begun and at < ended + 0.01]
        best, took, status = min(best, max(during, default=0.0)), ended - begun, answer.status
    return Result(case.name, len(body), case.bar, best * 1000, took * 1000, status)


async def run(port: int, key: str, wanted: str, rounds: int) -> list[Result]:
    cases = [case for case in CASES if any(word in case.name for word in wanted.split(","))]
    found = [await measure(port, key, case, rounds) for case in cases]
    if any(word in "kept answers" for word in wanted.split(",")):
        found.append(await measure(port, key, await kept_answers(port, key), rounds))
    return found


def unlimited_key(target: Target) -> str:
    """Else what is refused too often would be refused at once."""
    argv = [*GATEWAY, "keys", "create", "--credits", "unlimited", "--json"]
    made = subprocess.run(argv, env=target.environ, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    return str(json.loads(made.stdout)["key"])


def table(results: list[Result]) -> str:
    rows = [
        f"| {each.name} | {each.size / 1e6:.2f} | {each.status} | {each.worst:.1f} | {each.bar:.0f} |"
        for each in results
    ]
    head = ["| case | body MB | status | longest wait ms | bar |", "| --- | ---: | ---: | ---: | ---: |"]
    return "\n".join([*head, *rows])


# The upstream: it answers as the last user message says.

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
END = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":9}}\n\ndata: [DONE]\n\n'
)
ANSWERS: dict[bytes, Callable[[], list[bytes]]] = {
    b"plain": lambda: [CHUNK % b"Hello", END],
    b"long": lambda: [CHUNK % (b"word " * 6000), END],
    b"one event of 8 MiB": lambda: [CHUNK % (b"x" * (8 * 2**20 - 200)), END],
    b"a dense event": lambda: [b'data: {"choices":[],"x":[' + b"[]," * 2_000_000 + b"0]}\n\n", END],
    b"tiny events": lambda: [b"data: {}\n\n" * 400_000, CHUNK % b"Hello", END],
    b"comments": lambda: [b":\n\n" * 1_000_000, CHUNK % b"Hello", END],
    b"many chunks": lambda: [(CHUNK % b"ab") * 40_000, END],
    b"many choices": lambda: [
        b'data: {"choices":['
        + b",".join(b'{"index":%d,"delta":{"content":"a"}}' % number for number in range(20_000))
        + b"]}\n\n",
        END,
    ],
    b"many calls": lambda: [
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":['
        + b",".join(
            b'{"index":%d,"id":"f:%d","function":{"name":"f","arguments":"{}"}}' % (number, number)
            for number in range(4_000)
        )
        + b"]}}]}\n\n",
        END,
    ],
    b"a deep event": lambda: [b"data: " + b"[" * 1_000_000 + b"]" * 1_000_000 + b"\n\n", END],
}


async def upstream(port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                body = await reader.readexactly(length)
                if b"/chat/completions" not in head.partition(b"\r\n")[0]:
                    found = b'{"data":{"total_tokens":9}}' if b"estimate" in head else b'{"data":[]}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(found), found))
                    continue
                at = body.rfind(MARK)
                name = body[at + len(MARK) :].partition(b'"')[0] if at >= 0 else b"plain"
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n")
                if name == b"a bomb":
                    writer.write(b"content-encoding: gzip\r\n\r\n" + gzip.compress(bytes(50_000_000)))
                else:
                    writer.write(b"\r\n")
                    for piece in ANSWERS.get(name, ANSWERS[b"plain"])():
                        writer.write(piece)
                        await writer.drain()
                break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=2**26)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="words in the names of cases, comma-joined")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)  # the upstream's own process
    options = parser.parse_args()
    if options.port:
        asyncio.run(upstream(options.port))
        return
    unwind_on_signals()
    target_cores, other_cores = shares()
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        argv = [sys.executable, str(HERE / "loop_block.py"), "--port", str(port)]
        answering = Process(argv, environment(home), other_cores, home / "upstream.log")
        target = gateway(home, f"http://127.0.0.1:{port}/v1")
        with answering, target.start(target_cores) as process:
            answering.wait_for(port)
            process.wait_for(target.port)
            results = asyncio.run(run(target.port, unlimited_key(target), options.only, options.rounds))
    if options.json:
        print(json.dumps([{name: getattr(each, name) for name in Result.__slots__} for each in results]))
    else:
        print(table(results))
    sys.exit(1 if [each for each in results if each.worst > each.bar] else 0)


if __name__ == "__main__":
    main()
