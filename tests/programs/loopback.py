"""What makes a fresh network namespace usable: loopback up, and a name server that knows nobody and remembers
who was asked for. So a program's attempts to reach the internet are seen, and fail at once.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import threading
from pathlib import Path

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_NAME_ERROR = 0x8183  # an answer, recursion available, no such name


def alone() -> bool:
    """Whether this process sees no interface but loopback."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def bring_up() -> None:
    """Raises OSError where the namespace is not ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


class NameServer:
    """On 127.0.0.1:53, and named by /etc/resolv.conf in this mount namespace alone."""

    def __init__(self, folder: Path) -> None:
        self.asked: set[str] = set()
        conf = folder / "resolv.conf"
        conf.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        subprocess.run(["mount", "--bind", conf, Path("/etc/resolv.conf").resolve()], check=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, name="names", daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(4096)
            self.asked.add(_name(question))
            self._socket.sendto(_refusal(question), peer)


def _name(question: bytes) -> str:
    labels, at = [], 12
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].decode("ascii", "replace"))
        at += 1 + size
    return ".".join(labels).lower()


def _refusal(question: bytes) -> bytes:
    end = question.index(0, 12) + 5  # after the name, its type and class
    return question[:2] + struct.pack(">5H", _NAME_ERROR, 1, 0, 0, 0) + question[12:end]
