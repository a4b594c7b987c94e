"""Runs the steps of the Containerfile in a Debian that debootstrap makes: for machines without an engine.

Needs root and debootstrap. It makes the root folder, runs COPY, RUN, ENV and USER there in order, starts CMD
as its user, makes a key, asks for an answer, and ends the process by SIGTERM. Debian's Python stands in for
the base image. Raises CalledProcessError or AssertionError at the first step that fails.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
RELEASE = "bookworm"
FROM_HERE = (
    "/etc/resolv.conf",
    "/etc/pip.conf",
    "/etc/ssl/certs/ca-certificates.crt",
)  # how this machine reaches packages
PASSED_ON = ("PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy")
BODY = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Instruction and rest of each line; the file has no continued lines."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest


class Image:
    """A root folder with what the instructions so far have set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
        self.user = "root"
        self.command: list[str] = []

    def take(self, name: str, rest: str) -> None:
        match name:
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    self._copy(ROOT / source, target)
            case "RUN":
                passed = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
                subprocess.run(self.inside("/bin/sh", "-c", rest), env=self.environ | passed, check=True)
            case "ENV":
                self.environ |= dict(word.split("=", 1) for word in shlex.split(rest))
            case "USER":
                self.user = rest
            case "CMD":
                self.command = json.loads(rest)
            case "FROM" | "VOLUME" | "EXPOSE":
                pass
            case _:
                raise AssertionError(f"unknown instruction {name}")

    def inside(self, *words: str) -> list[str]:
        who = [] if self.user == "root" else [f"--userspec={self.user}:{self.user}"]
        return ["/usr/sbin/chroot", *who, str(self.folder), *words]

    def _copy(self, source: Path, target: str) -> None:
        place = self.folder / target.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


@contextmanager
def debian() -> Iterator[Path]:
    """An empty Debian with Python, removed at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "root"
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", packages, RELEASE, folder], check=True)
        for file in filter(os.path.exists, FROM_HERE):
            shutil.copyfile(file, folder / file.lstrip("/"))
        subprocess.run(["mount", "-t", "proc", "proc", folder / "proc"], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder / "proc"], check=True)


def answers(image: Image) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = image.inside(*image.command, "--port", port)
    with subprocess.Popen(command, env=image.environ) as server:
        try:
            _until_up(server, port)
            made = image.inside("kimi-gateway", "keys", "create", "--name", "me", "--json")
            key = json.loads(subprocess.run(made, env=image.environ, check=True, capture_output=True).stdout)[
                "key"
            ]
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/chat/completions",
                json.dumps(BODY).encode(),
                {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                assert json.load(answer)["choices"][0]["message"]["content"]
            status = Path(f"/proc/{server.pid}/status").read_text()
            owner = (image.folder / "data").stat()
            assert f"Uid:\t{owner.st_uid}\t" in status
            assert owner.st_uid != 0
            assert owner.st_mode & 0o777 == 0o700
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0, server.returncode


def _until_up(server: subprocess.Popen[bytes], port: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("it does not listen")


def main() -> None:
    if os.geteuid() or not shutil.which("debootstrap"):
        sys.exit("This needs root and debootstrap (apt-get install debootstrap).")
    with debian() as folder:
        image = Image(folder)
        for name, rest in steps((ROOT / "Containerfile").read_text("utf-8")):
            print(name, rest, flush=True)
            image.take(name, rest)
        answers(image)
    print("It serves as its user, keeps its data private, and ends by SIGTERM with 0.")


if __name__ == "__main__":
    main()
