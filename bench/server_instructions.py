"""Instructions of one request in the whole server process, on real sockets, counted by callgrind.

The gateway as delivered (SQLite in a file, key, limits, credits, log in a file), the bare proxy and the
relay answer one client. The emulator and the client are not counted. Needs valgrind with vgdb. A target
starts once; its counter is set to zero before a few and before many requests, and the difference leaves out
the connection and the dump.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from processes import free_port
from targets import Target, bare_proxy, emulator, gateway, relay

WARM, FEW, MANY = 20, 10, 50  # requests
START, ANSWER = 900, 120  # seconds, since valgrind is slow
MAKE = {"bare proxy": bare_proxy, "relay": relay, "gateway": gateway}


class Counted:
    """A target under callgrind."""

    def __init__(self, target: Target, home: Path) -> None:
        self._target, self._port = target, free_port()
        self._dumps, self._dumped = home / f"{target.name.replace(' ', '-')}.callgrind", 0
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self._dumps}"]
        command = [*tool, *target.argv, "--port", str(self._port)]
        environ = {**target.environ, "PYTHONHASHSEED": "0"}
        with target.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)  # noqa: S603

    def end(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def instructions(self, body: bytes) -> float:
        """Of one request."""
        self._ask(body, WARM)
        few, many = self._window(body, FEW), self._window(body, MANY)
        return (many - few) / (MANY - FEW)

    def _window(self, body: bytes, requests: int) -> int:
        self._tell("zero")
        self._ask(body, requests)
        self._tell("dump")
        self._dumped += 1
        text = Path(f"{self._dumps}.{self._dumped}").read_text()
        return int(re.findall(r"^summary: (\d+)", text, re.MULTILINE)[0])

    def _tell(self, what: str) -> None:
        told = ["vgdb", f"--pid={self._process.pid}", what]
        subprocess.run(told, check=True, capture_output=True, timeout=ANSWER)  # noqa: S603

    def _ask(self, body: bytes, requests: int) -> None:
        """Head and body in one write, as the other benchmarks do."""
        connection = self._connected()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        head += f"authorization: Bearer {self._target.key}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        for _ in range(requests):
            connection.sock.sendall(head.encode() + body)
            answer = http.client.HTTPResponse(connection.sock, method="POST")
            answer.begin()
            text = answer.read()
            if answer.status != 200:
                raise SystemExit(f"refused: {answer.status} {text[:200]!r}")
        connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        ends = time.monotonic() + START
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER)
        while True:
            try:
                connection.connect()
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > ends:
                    raise SystemExit(f"no start: {self._target.log.read_text()[-2000:]}") from None
                time.sleep(0.2)
            else:
                return connection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--form", choices=("stream", "json"), default="json")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--target", choices=MAKE, action="append", help="all if none is named")
    given = parser.parse_args()
    wish = {"metadata": {"bench": {"chunks": given.chunks}}, "stream": given.form == "stream"}
    request = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}], **wish}
    body = json.dumps(request).encode()
    with tempfile.TemporaryDirectory(prefix="kimi-instructions-") as folder:
        home = Path(folder)
        upstream = emulator(home)
        running = upstream.start(sorted(os.sched_getaffinity(0)))
        try:
            for name in given.target or MAKE:
                counted = Counted(MAKE[name](home, f"http://127.0.0.1:{upstream.port}/v1"), home)
                try:
                    million = counted.instructions(body) / 1e6
                finally:
                    counted.end()
                shape = f"{given.form}, {given.chunks} chunks, {name}"
                print(f"{shape}: {million:.3f} M instructions", flush=True)
        finally:
            running.end()


if __name__ == "__main__":
    main()
