"""docs/home.md: nginx runs with the block of the page, systemd takes the printed units, and the script knows
the container's steps."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from docs import container_steps
from kimi_gateway.cli.service import value, word
from kimi_gateway.endpoints.token_check import CHECKS
from support import ROOT
from support.command import PROGRAM, environment
from support.exchange import CHARGED, ledger
from support.fault_table import WHOLE
from support.live import HELLO, LiveGateway
from upstream import Gated, ScriptedUpstream, Stall

PAGE = (ROOT / "docs/home.md").read_text("utf-8")
[SERVER] = re.findall(r"^```nginx\n(.*?)^```", PAGE, re.M | re.S)
AROUND = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
user {user};
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


def program(want: str, name: str) -> str:
    """A program's path; it is installed where it is missing. Raises CalledProcessError."""
    subprocess.run([ROOT / "scripts/setup", want], check=True)
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None
    return found


@contextmanager
def nginx(folder: Path, gateway: LiveGateway) -> Iterator[int]:
    """nginx with the block of the page: its port. Addresses and files are the test's."""
    folder.mkdir(mode=0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    certificate = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=kimi.example.org",
    ]
    names = [
        "-keyout",
        folder / "key",
        "-out",
        folder / "pem",
        "-addext",
        "subjectAltName=DNS:kimi.example.org",
    ]
    subprocess.run([*certificate, *names], check=True, capture_output=True)
    block = SERVER
    for shown, ours in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/kimi.pem": str(folder / "pem"),
        "/etc/ssl/private/kimi.key": str(folder / "key"),
        "http://127.0.0.1:8000": gateway.url,
    }.items():
        assert block.count(shown) == 1
        block = block.replace(shown, ours)
    user = "root" if os.geteuid() == 0 else ""
    text = AROUND.format(folder=folder, server=block, user=user)
    (folder / "conf").write_text(text if user else text.replace("user ;\n", ""))
    command = [program("nginx", "nginx"), "-p", folder, "-c", folder / "conf"]
    with (folder / "err").open("w") as err, subprocess.Popen(command, stderr=err) as running:
        try:
            _listens(port, running, folder / "err")
            yield port
        finally:
            running.terminate()


def _listens(port: int, running: subprocess.Popen[bytes], err: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and running.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.02)
    raise AssertionError(err.read_text())


def through(
    port: int, pem: Path, key: str, path: str, body: object, source: str = "127.0.0.1"
) -> ssl.SSLSocket:
    """A request on its way through nginx, from `source`."""
    context = ssl.create_default_context(cafile=str(pem))
    bare = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))
    client = context.wrap_socket(bare, server_hostname="kimi.example.org")
    content = json.dumps(body).encode()
    client.sendall(
        f"POST {path} HTTP/1.1\r\nhost: kimi.example.org\r\nauthorization: Bearer {key}\r\n"
        "connection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return client


def until(client: ssl.SSLSocket, part: bytes, read: bytes = b"") -> bytes:
    while part not in read:
        more = client.recv(65536)
        assert more, read
        read += more
    return read


def test_nginx_passes_streams_on_reports_a_client_that_left_and_names_the_real_address(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    gate, asked = Gated(WHOLE), {"model": "kimi-k3", "messages": HELLO, "stream": True}
    with (
        LiveGateway(tmp_path, up.url, trusted_proxies=("127.0.0.1",)) as gateway,
        nginx(tmp_path / "nginx", gateway) as port,
    ):
        pem, key = tmp_path / "nginx/pem", gateway.key()
        up.plan(gate)
        gate.let(2)
        with through(port, pem, key, "/v1/chat/completions", asked) as client:
            read = until(client, b"\r\n\r\n")
            assert b" 200 " in read.partition(b"\r\n")[0]
            for count in (3, 4, 5):
                frames = read.count(b"data: ")
                assert gate.sent < count
                gate.let()
                while read.count(b"data: ") == frames:
                    read += client.recv(65536)
            gate.let(100)
            until(client, b"data: [DONE]", read)
        assert ledger(gateway, key) == CHARGED
        up.plan(Stall(2, WHOLE))
        client = through(port, pem, key, "/v1/chat/completions", asked)
        until(client, b"data: ")
        client.close()
        up.until(lambda: all(request.closed_early.is_set() for request in up.chats[1:]))
        gateway.nothing_left(key)
        assert gateway.app.running is not None
        askers = gateway.app.running.endpoints.token_check()._askers
        askers.spend("127.0.0.7", gateway.clock(), 2 * CHECKS)
        for source, status in (("127.0.0.7", b" 429 "), ("127.0.0.8", b" 200 ")):
            with through(port, pem, "-", "/token/check", {"token": "sk-kg-x"}, source) as client:
                assert status in until(client, b"\r\n").partition(b"\r\n")[0]


@pytest.mark.parametrize("words", [(), ("--system", "--user", "daemon")], ids=["user", "system"])
def test_systemd_takes_the_printed_units(tmp_path: Path, words: tuple[str, ...]) -> None:
    analyze = program("systemd", "systemd-analyze")
    folder = tmp_path / 'a "folder" of 100% $HOME'
    environ = environment() | {"KIMI_GATEWAY_DATA": str(folder), "XDG_RUNTIME_DIR": str(tmp_path)}
    files = {
        "gateway": "kimi-gateway.service",
        "backup": "kimi-gateway-backup.service",
        "timer": "kimi-gateway-backup.timer",
    }
    options = {"gateway": ("--port", "9000", "--trusted-proxies", "127.0.0.1,::1")}
    for unit, name in files.items():
        ran = subprocess.run(
            [*PROGRAM, "service", unit, *words, *options.get(unit, ())],
            env=environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        (tmp_path / name).write_text(ran.stdout)
    manager = () if words else ("--user",)
    verify = [analyze, *manager, "verify", "--man=no", *(tmp_path / name for name in files.values())]
    ran = subprocess.run(verify, env=environ, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
    unit = (tmp_path / "kimi-gateway.service").read_text()
    assert "serve --port 9000 --trusted-proxies 127.0.0.1,::1\n" in unit
    assert ("\nUser=daemon\n" in unit, "ProtectSystem=strict" in unit) == (bool(words), bool(words))


def test_a_word_of_a_unit_is_read_as_it_was_written() -> None:
    written = {"plain/path.x": "plain/path.x", "a b": '"a b"', "100%": "100%%", "$HOME": "$$HOME"}
    written |= {'"\\': '"\\"\\\\"', "": '""'}
    assert {text: word(text) for text in written} == written
    assert {text: value(text) for text in written} == written | {"$HOME": "$HOME"}


def test_the_script_knows_each_instruction_of_the_containerfile() -> None:
    text = (ROOT / "Containerfile").read_text("utf-8")
    image = container_steps.Image(Path("/nowhere"))
    quiet = [(name, rest) for name, rest in container_steps.steps(text) if name not in ("COPY", "RUN")]
    for name, rest in quiet:
        image.take(name, rest)
    assert (image.user, image.command[:2]) == ("gateway", ["kimi-gateway", "serve"])
    assert "".join(line for line in text.splitlines() if line.endswith("\\")) == ""
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    sources = [
        source for name, rest in container_steps.steps(text) if name == "COPY" for source in rest.split()[:-1]
    ]
    assert {f"!{source}" for source in sources} == {line for line in ignored if line.startswith("!")}
