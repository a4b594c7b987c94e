"""The README's commands, run in order as a reader would: `python tests/docs/readme.py FOLDER [PORT]`.

FOLDER is a clone. A block that starts the server goes on running behind the others; the key that it prints
takes the place of the README's example. Another port than 8000 may be named, if a server runs there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.M | re.S)
KEY = re.compile(r"sk-kg-[0-9A-Za-z]{38}")


@dataclass(frozen=True)
class Ran:
    """One block's outcome: what was run, what it printed, seconds since the first block began."""

    code: str
    output: str
    status: int
    ended: float


def blocks(text: str) -> list[tuple[str, str]]:
    return [(kind, code) for kind, code in BLOCK.findall(text)]


def run(folder: Path, port: int, environ: dict[str, str]) -> list[Ran]:
    """Every sh and python block of the README, until one fails."""
    begun, ran, key, server = time.monotonic(), list[Ran](), "", None
    try:
        for kind, code in blocks((folder / "README.md").read_text("utf-8")):
            code = code.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("sk-kg-...", key)
            if code.strip() == "scripts/serve":
                server = _serve(folder, port, environ)
                output = _until_key(server)
                key = KEY.findall(output)[0]
                ran.append(Ran(code, output, 0, time.monotonic() - begun))
                continue
            if code.startswith("export KEY="):
                environ = {**environ, "KEY": key}
            command = ["bash", "-euc", code] if kind == "sh" else [".venv/bin/python", "-c", code]
            done = subprocess.run(
                command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300
            )
            ran.append(Ran(code, done.stdout + done.stderr, done.returncode, time.monotonic() - begun))
            if done.returncode:
                break
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
            if server.stdout is not None:
                server.stdout.close()
    return ran


def _serve(folder: Path, port: int, environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["scripts/serve", "--port", str(port)], cwd=folder, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _until_key(server: subprocess.Popen[str]) -> str:
    """What the server prints until it serves; it prints the key and the curl line before that."""
    output = ""
    assert server.stdout is not None
    for line in server.stdout:
        output += line
        if "curl" in line:
            break
    port = server.args[-1]  # type: ignore[index]
    for _ in range(600):
        asked = subprocess.run(["curl", "-sf", f"http://127.0.0.1:{port}/ping"], capture_output=True)
        if asked.returncode == 0:
            return output
        time.sleep(0.1)
    raise AssertionError(f"the server does not answer\n{output}")


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    environ = {**os.environ, "KIMI_GATEWAY_DATA": str(folder / ".readme-data")}
    failed = False
    for block in run(folder, port, environ):
        print(
            f"--- {block.ended:.1f} s, exit {block.status}\n{block.code}\n{KEY.sub('sk-kg-…', block.output)}"
        )
        failed |= block.status != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
