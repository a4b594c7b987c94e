"""The load generator, a process of its own: keep-alive clients that ask again as soon as they are answered.

It prints "ready" after its warm-up, waits for a line on stdin, then measures and prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import httptools

STAMP = re.compile(rb'"content":" *(\d+\.\d{6})"')
CONTENT = b'"delta":{"content":"'
FEW = 2  # parts; by then content has come, even if it is cut at the place that is looked for
LONGEST = 120.0  # seconds that one answer may take
QUESTION = "What can a gateway add that a proxy cannot? Answer in one short paragraph."
LINE = 'def f(x: int) -> str:\n    return f"{x!r}, \\"quoted\\"; naïve, 你好"  # as agents send it\n'


@dataclass(frozen=True, slots=True)
class Workload:
    """`body` is the request's size in bytes, 0 for a short question; `once` has each client ask one time.
    `beside` is the size of the events that one more client reads all the while. `many`: more streams than the
    bare proxy's client opens connections."""

    clients: int
    chunks: int
    stream: bool
    gap_ms: float = 0
    body: int = 0
    once: bool = False
    beside: int = 0
    many: bool = False


WORKLOADS = {
    "small-1": Workload(1, 4, False),
    "small-16": Workload(16, 4, False),
    "small-64": Workload(64, 4, False),
    "json-20": Workload(1, 20, False),
    "json-100": Workload(1, 100, False),
    "json-500": Workload(1, 500, False),
    "stream-1": Workload(1, 100, True),
    "stream-16": Workload(16, 100, True),
    "stream-64": Workload(64, 100, True),
    "paced-50": Workload(50, 100, True, gap_ms=10, once=True),
    "paced-500": Workload(500, 50, True, gap_ms=100, once=True, many=True),
    "idle-2000": Workload(2000, 2, True, gap_ms=5000, once=True, many=True),
    "body-1mb": Workload(1, 4, False, body=1_000_000),
    "beside-8mib": Workload(1, 4, False, beside=8 * 2**20 - 1024),
}


@dataclass(slots=True)
class Answer:
    """`status` 0 is a lost connection or a time-out, told by `fault`."""

    status: int = 0
    seconds: float = 0.0
    first: float = 0.0  # seconds until content came
    body: bytes = b""
    fault: str = ""
    arrivals: list[float] = field(default_factory=list)  # time.monotonic() of each read with a stamp in it
    lags: list[float] = field(default_factory=list)  # seconds from the sending of each stamp


@dataclass(slots=True)
class Result:
    """Milliseconds, but for `seconds` and `cpu`, the generator's own time. `first` is the time until content
    comes. Lags are from the upstream's write to the client's read; gaps lie between reads."""

    requests: int
    seconds: float
    cpu: float
    errors: dict[str, int]
    p50: float
    p99: float
    first_p50: float
    first_p99: float
    lag_p50: float
    lag_p99: float
    gap_p99: float

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time on it."""

    def __init__(self) -> None:
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._stamped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, message: bytes, stamped: bool = False, leave_after: int = 0) -> Answer:
        """`leave_after` chunks of content the connection is dropped, as by a client that leaves."""
        self._answer, self._tail, self._stamped = Answer(), b"", stamped
        self._parts: list[bytes] = []
        self._leave_after = leave_after
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(LONGEST, self._end, "timeout")
        self._begun = start = time.perf_counter()
        self._transport.write(message)
        await self._waiter
        timer.cancel()
        answer = self._answer
        answer.seconds = time.perf_counter() - start
        answer.body = b"".join(self._parts)
        return answer

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end("malformed")

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        if not self._answer.first and (CONTENT in data or len(self._parts) > FEW):
            self._answer.first = time.perf_counter() - self._begun
        if self._stamped:
            self._read_stamps(data)
        if self._leave_after and b"".join(self._parts).count(CONTENT) > self._leave_after:
            self._answer.status = self._parser.get_status_code()
            self._end("left")

    def _read_stamps(self, data: bytes) -> None:
        now, answer = time.monotonic(), self._answer
        data = self._tail + data
        whole = data.rfind(b"\n\n") + 2
        self._tail = data[whole:] if whole > 1 else data
        stamps = STAMP.findall(data, 0, whole) if whole > 1 else ()
        for stamp in stamps:
            answer.arrivals.append(now)
            answer.lags.append(now - float(stamp))

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.closed = True
            self._transport.close()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            self._answer.fault = "lost"
            self._wake()

    def close(self) -> None:
        self.closed = True
        self._transport.abort()

    def _end(self, fault: str) -> None:
        self._answer.fault = fault
        self.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def connect(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    return connection


def request(port: int, key: str, body: dict[str, object], path: str = "/v1/chat/completions") -> bytes:
    """An SDK's request; `metadata` stands first, where the emulator looks for it."""
    text = json.dumps(body, ensure_ascii=False).encode()
    head = (
        f"POST {path} HTTP/1.1\r\n"
        f"host: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        "accept: application/json\r\naccept-encoding: gzip, deflate\r\nuser-agent: OpenAI/Python 3.54.0\r\n"
        "x-stainless-lang: python\r\nx-stainless-runtime: CPython\r\n"
        f"connection: keep-alive\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def chat(wish: dict[str, object], stream: bool, size: int = 0, model: str = "kimi-k3") -> dict[str, object]:
    """A chat's body. A large one is a history of many messages, as an agent's is."""
    messages = [{"role": "user", "content": QUESTION}]
    text, turn = LINE * 40, 0
    while size > 0:
        turn += 1
        messages.insert(0, {"role": "assistant" if turn % 2 else "user", "content": text})
        size -= len(json.dumps(messages[0], ensure_ascii=False).encode()) + 2
    return {"metadata": {"bench": wish}, "model": model, "stream": stream, "messages": messages}


def fault_of(answer: Answer, workload: Workload) -> str:
    """What is wrong with an answer, "" where it is whole."""
    if answer.fault:
        return answer.fault
    if answer.status != 200:
        return f"status {answer.status}"
    if workload.stream:
        whole = answer.body.count(CONTENT) >= workload.chunks and b"data: [DONE]" in answer.body[-64:]
    else:
        whole = answer.body.count(b" word, another w") >= workload.chunks
    return "" if whole else "incomplete"


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Run:
    """One workload against one port, bounded by a count and a time."""

    def __init__(self, workload: Workload, port: int, key: str) -> None:
        self._workload = workload
        self._port = port
        wish: dict[str, object] = {"chunks": workload.chunks}
        if workload.gap_ms:
            wish |= {"gap_ms": workload.gap_ms, "stamp": True}
        self._message = request(port, key, chat(wish, workload.stream, workload.body))
        self._beside = request(port, key, chat({"chunks": 1, "size": workload.beside}, True))
        self._latencies: list[float] = []
        self._firsts: list[float] = []
        self._lags: list[float] = []
        self._gaps: list[float] = []
        self._errors: Counter[str] = Counter()

    async def connect(self) -> None:
        self._connections = [await connect(self._port) for _ in range(self._workload.clients)]
        self._other = await connect(self._port) if self._workload.beside else None

    async def warm_up(self, seconds: float) -> None:
        """As the measurement, unrecorded; paced streams are not run before they are measured."""
        if not self._workload.once:
            await self.measure(10**6, seconds)
            self._latencies, self._firsts, self._errors = [], [], Counter()

    async def measure(self, most: int, seconds: float) -> Result:
        numbers, start, cpu = iter(range(most)), time.perf_counter(), time.process_time()
        end = start + seconds
        clients = range(self._workload.clients)
        large = asyncio.create_task(self._read_large(end))
        await asyncio.gather(*(self._client(client, numbers, end) for client in clients))
        await large
        lags, gaps, latencies = self._lags, self._gaps, self._latencies
        return Result(
            requests=len(latencies),
            seconds=time.perf_counter() - start,
            cpu=time.process_time() - cpu,
            errors=dict(self._errors),
            p50=percentile(latencies, 0.5) * 1000,
            p99=percentile(latencies, 0.99) * 1000,
            first_p50=percentile(self._firsts, 0.5) * 1000,
            first_p99=percentile(self._firsts, 0.99) * 1000,
            lag_p50=percentile(lags, 0.5) * 1000,
            lag_p99=percentile(lags, 0.99) * 1000,
            gap_p99=percentile(gaps, 0.99) * 1000,
        )

    async def _read_large(self, end: float) -> None:
        while self._other is not None and time.perf_counter() < end:
            if self._other.closed:
                self._other = await connect(self._port)
            answer = await self._other.ask(self._beside)
            if answer.status != 200 or len(answer.body) < self._workload.beside:
                self._errors[answer.fault or f"large: status {answer.status}"] += 1
                return

    async def _client(self, client: int, numbers: Iterator[int], end: float) -> None:
        workload, connection = self._workload, self._connections[client]
        if workload.once:  # streams that begin together would send their chunks together
            await asyncio.sleep(client * workload.gap_ms / 1000 / workload.clients)
        for _ in numbers:
            if connection.closed:
                connection = self._connections[client] = await connect(self._port)
            answer = await connection.ask(self._message, bool(workload.gap_ms))
            self._record(answer)
            if workload.once or time.perf_counter() >= end:
                return

    def _record(self, answer: Answer) -> None:
        if fault := fault_of(answer, self._workload):
            self._errors[fault] += 1
            return
        self._latencies.append(answer.seconds)
        if answer.first:
            self._firsts.append(answer.first)
        self._lags += answer.lags
        self._gaps += [
            after - before for before, after in zip(answer.arrivals, answer.arrivals[1:], strict=False)
        ]

    def close(self) -> None:
        for connection in (*self._connections, self._other):
            if connection is not None:
                connection.close()


async def main(arguments: argparse.Namespace) -> None:
    run = Run(WORKLOADS[arguments.workload], arguments.port, arguments.key)
    await run.connect()
    await run.warm_up(arguments.warm_up)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    result = await run.measure(arguments.count, arguments.seconds)
    print(json.dumps(asdict(result)), flush=True)
    run.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", default="none")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.3)
    parser.add_argument("--count", type=int, default=100_000)
    asyncio.run(main(parser.parse_args()))
