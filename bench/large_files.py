"""A large file through the whole gateway at home, in a process of its own: by address in a chat, and by
multipart to the Files API. Memory, processor time, and whether both legs overlap.

    scripts/large-files [MB] [MB a second of each leg]

Web server and provider are one paced process, as in `bench/files.py`. Linux only.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from files import HEADS, MB, serve

from support.server_process import ServerProcess

PIECE = 64 * 1024
EDGE = "edge"
TICKS = os.sysconf("SC_CLK_TCK")


def post(server: ServerProcess, path: str, kind: str, key: str, length: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=300)
    lines = (
        f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {key}", f"content-type: {kind}",
        "connection: close", f"content-length: {length}", "", "",
    )  # fmt: skip
    client.sendall("\r\n".join(lines).encode())
    return client


def answered(client: socket.socket) -> None:
    """Raises SystemExit if the answer is not a good one."""
    answer = b""
    with client:
        while data := client.recv(PIECE):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(answer[:500].decode())


def by_address(server: ServerProcess, key: str, port: int, size: int, rate: float) -> None:
    url = f"http://127.0.0.1:{port}/video/{size}"
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    asked = {"model": "kimi-k3", "messages": [{"role": "user", "content": content}]}
    body = json.dumps(asked).encode()
    client = post(server, "/v1/chat/completions", "application/json", key, len(body))
    client.sendall(body)
    answered(client)


def by_multipart(server: ServerProcess, key: str, port: int, size: int, rate: float) -> None:
    """The client's leg is paced too."""
    purpose = f'--{EDGE}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nvideo\r\n'
    file = f'--{EDGE}\r\ncontent-disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    before, after = (purpose + file).encode(), f"\r\n--{EDGE}--\r\n".encode()
    kind = f"multipart/form-data; boundary={EDGE}"
    client = post(server, "/v1/files", kind, key, len(before) + size + len(after))
    client.sendall(before)
    begun = time.monotonic()
    for at in range(0, size, PIECE):
        client.sendall((HEADS["video"] if not at else b"").ljust(min(PIECE, size - at), b"v"))
        ahead = at / rate - (time.monotonic() - begun)
        if ahead > 0.005:
            time.sleep(ahead)
    client.sendall(after)
    answered(client)


def peak(pid: int) -> int:
    """The most that the process ever had, in KiB."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def worked(pid: int) -> float:
    """Its processor seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> None:
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 80
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 20
    size, leg = int(megabytes * MB), megabytes / rate
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, rate * MB), daemon=True)
    process.start()
    port = here.recv()
    ways: dict[str, Callable[[ServerProcess, str, int, int, float], None]] = {
        "by address": by_address,
        "by multipart": by_multipart,
    }
    url, allowed = f"http://127.0.0.1:{port}/v1", f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        for name, send in ways.items():
            data = Path(folder, name.replace(" ", "-"))
            data.mkdir()
            with ServerProcess(data, url, fetch_allowed=allowed) as server:
                key, pid = server.key(), server.process.pid
                send(server, key, port, MB, rate * MB)  # loads what it needs
                before, begun, cpu = peak(pid), time.monotonic(), worked(pid)
                send(server, key, port, size, rate * MB)
                seconds, cpu = time.monotonic() - begun, worked(pid) - cpu
                print(
                    f"{megabytes:.0f} MB {name}: {seconds:.2f} s = {seconds / leg:.2f} of one leg"
                    f" ({leg:.2f} s); {cpu * 1000 / megabytes:.2f} ms of processor time a MB;"
                    f" memory +{(peak(pid) - before) / 1024:.1f} MiB"
                )
    process.terminate()


if __name__ == "__main__":
    main()
