"""`kimi-gateway serve` in a process of its own, and commands beside it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner

from kimi_gateway.cli import main
from support.command import PROGRAM, environment
from support.tls import NO_TLS

KEY = re.compile(r"sk-kg-[0-9A-Za-z]{38}")


def command(*words: object) -> Any:
    """The document of a command, which shares only the data folder with the server."""
    ran = CliRunner().invoke(main, [*map(str, words), "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


@contextmanager
def serving(tmp_path: Path, *words: str, kill: bool = False) -> Iterator[tuple[str, str]]:
    """A server's address and all that it printed before it served. It ends by SIGTERM, or by SIGKILL."""
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        program = [*PROGRAM, "serve", "--port", "0", *words]
        with subprocess.Popen(program, env=environment(), stdout=stdout, stderr=stderr) as server:
            try:
                yield _up(server, out, err), out.read_text()
            finally:
                server.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
                server.wait(30)


def _up(server: subprocess.Popen[bytes], out: Path, err: Path) -> str:
    end = time.monotonic() + 30
    while time.monotonic() < end and server.poll() is None:
        address = re.match(r"Kimi Gateway on (\S+)\n", out.read_text())
        if address:
            with suppress(httpx.TransportError):
                httpx.get(f"{address[1]}/ping", verify=NO_TLS)
                return address[1]
        time.sleep(0.02)
    raise AssertionError(err.read_text())


def chat(address: str, key: str) -> int:
    body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers, verify=NO_TLS).status_code
