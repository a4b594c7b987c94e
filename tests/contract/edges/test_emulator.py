"""The built artefact under AWS's Runtime Interface Emulator. That buffers what streams: the pace of chunks is
proven in test_lambda_gateway.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import ROOT, api_gateway
from support.api_gateway import Answered
from support.built import MINOR, emulator, task_root
from support.fault_table import TEXT, WHOLE
from support.live import HELLO, events, text_of
from support.server_process import StoreAtHome
from support.tls import NO_TLS
from upstream import Cut, Gated, ScriptedUpstream

USER, GROUP = 993, 990  # the emulator gives these to the runtime in its multi-concurrency mode


def free_ports() -> list[str]:
    """Below those that clients get, since the emulator binds later."""
    found: list[str] = []
    port = 10_000 + os.getpid() % 10_000
    while len(found) < 2:
        port += 1
        if not listens(f"127.0.0.1:{port}"):
            found.append(f"127.0.0.1:{port}")
    return found


def listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with closing(socket.socket()) as tried:
        return not tried.connect_ex((host, int(port)))


class Emulated:
    def __init__(self, address: str, store: StoreAtHome, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.url = f"http://{address}/2015-03-31/functions/function/invocations"
        self.store = store
        self.log = log

    def send(self, method: str, path: str, key: str, body: object = None) -> Answered:
        """Prelude and mark of a streamed answer come as they are. It refuses until runtimes poll."""
        headers = [("Authorization", f"Bearer {key}")]
        event = api_gateway.event(method, path, headers, b"" if body is None else json.dumps(body).encode())
        end = time.monotonic() + 60
        while time.monotonic() < end:
            got = httpx.post(self.url, json=event, timeout=60, trust_env=False, verify=NO_TLS)
            if "no idle runtimes" not in got.text:
                break
            time.sleep(0.05)
        assert got.status_code == 200, got.text
        return (
            api_gateway.of_stream(got.content) if b"\0" in got.content else api_gateway.of_proxy(got.json())
        )

    def chat(self, key: str, **more: Any) -> Answered:
        body = {"model": "kimi-k3", "messages": HELLO} | more
        return self.send("POST", "/v1/chat/completions", key, body)


@contextmanager
def emulated(folder: Path, upstream: str, handler: str, *prefix: str, **more: str) -> Iterator[Emulated]:
    store = StoreAtHome(folder)
    outside, inside = free_ports()
    command = [str(emulator()), "--runtime-interface-emulator-address", outside]
    command += ["--runtime-api-address", inside]
    if not prefix:
        command += [str(task_root() / "stream"), sys.executable, handler]
    environ = {
        "PATH": os.environ["PATH"],
        "LAMBDA_TASK_ROOT": str(task_root()),
        "_HANDLER": handler,
        "KIMI_GATEWAY_DATA": str(store.settings.data),
        "KIMI_BASE_URL": upstream,
        "MOONSHOT_API_KEY": "sk-upstream-1",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "30",
        **more,
    }
    log = folder / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*prefix, *command], env=environ, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        end = time.monotonic() + 60
        while not listens(outside):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield Emulated(outside, store, log, process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def chats(module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    folder = tmp_path_factory.mktemp("emulated")
    with emulated(folder, module_upstream.url, "handlers.chat_completions.handler") as function:
        yield function


def test_a_chat_is_streamed_charged_and_logged(chats: Emulated, upstream: ScriptedUpstream) -> None:
    upstream.always(WHOLE)
    key = chats.store.key(5)
    answer = chats.chat(key, stream=True)
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    assert (text_of(answer.body.decode()), events(answer.body.decode())[-1]) == (TEXT, "[DONE]")
    assert chats.store.account(key).credits == 4
    assert '"outcome": "settled"' in chats.log.read_text()
    assert key not in chats.log.read_text()


def test_a_chat_in_json_and_its_errors_are_streamed_answers_too(
    chats: Emulated, upstream: ScriptedUpstream
) -> None:
    key = chats.store.key(5)
    answer = chats.chat(key)
    assert (answer.status, answer.json["choices"][0]["finish_reason"]) == (200, "stop")
    assert chats.chat("sk-kg-none").status == 401
    upstream.always(Cut(700, WHOLE))
    assert chats.chat(key).status == 503
    assert chats.store.account(key).credits == 4


def test_many_invocations_follow_each_other_in_one_process(
    chats: Emulated, upstream: ScriptedUpstream
) -> None:
    key = chats.store.key(50)
    assert {chats.chat(key, stream=True).status for _ in range(20)} == {200}
    assert chats.store.account(key).credits == 30
    assert chats.log.read_text().count('"event": "started"') == 1


def test_buffered_functions_answer_as_lambda_proxies(up: ScriptedUpstream, tmp_path: Path) -> None:
    with emulated(tmp_path, up.url, "handlers.account.handler") as function:
        key = function.store.key(7)
        assert function.send("GET", "/user/credits", key).json["credits_remaining"] == 7
        assert function.send("GET", "/health", key).json["status"] == "ok"
        assert function.send("GET", "/v1/chat/completions", key).status == 405


def test_the_platforms_end_reaches_the_process_as_sigterm(up: ScriptedUpstream, tmp_path: Path) -> None:
    """The emulator, told to end, ends the runtime as Lambda does: without an extension by SIGKILL."""
    tests = str(ROOT / "tests")
    with emulated(tmp_path, up.url, "support.lambda_handlers.protocol.handler", PYTHONPATH=tests) as function:
        assert httpx.post(function.url, json={"do": "echo"}, trust_env=False, verify=NO_TLS).json() == {
            "do": "echo"
        }
        function.process.send_signal(signal.SIGTERM)
        function.process.wait(20)
        assert "stopped after start idle closing stop" in function.log.read_text()


def interpreter_for_all() -> str | None:
    """One that another user may run; the one of a root-only home may not."""
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        real = Path(candidate).resolve()
        if all(place.exists() and place.stat().st_mode & 0o001 for place in (real, *real.parents)):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run([real, "-c", code], capture_output=True, text=True)
            if done.stdout.strip() == MINOR:
                return str(real)
    return None


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Not below pytest's, which is closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare"),
    reason="the emulator's multi-concurrency mode needs root and unshare",
)
def test_many_invocations_run_at_once_where_the_platform_says_so(
    up: ScriptedUpstream, shared_folder: Path
) -> None:
    python = interpreter_for_all()
    if python is None:
        pytest.skip(f"no Python {MINOR} that user {USER} may run")
    store = StoreAtHome(shared_folder)
    key = store.key(10)
    for place in (store.settings.data, *store.settings.data.iterdir()):
        os.chown(place, USER, GROUP)
    bootstrap = shared_folder / "bootstrap"
    bootstrap.write_text(f"#!/bin/sh\nLAMBDA_TASK_ROOT=/var/task exec /var/task/stream {python}\n")
    bootstrap.chmod(0o755)
    private = (
        "mount -t tmpfs -o mode=755 none /opt && mount -t tmpfs -o mode=755 none /var"
        f" && cp -r {task_root()} /var/task && chmod -R a+rX /var/task && cp {bootstrap} /opt/bootstrap"
        ' && exec "$0" "$@"'
    )
    prefix = ("unshare", "-m", "bash", "-c", private)
    gates = [Gated(WHOLE) for _ in range(4)]
    up.plan(*gates)
    handler = "handlers.chat_completions.handler"
    four = {"AWS_LAMBDA_MAX_CONCURRENCY": "4"}
    with (
        emulated(shared_folder, up.url, handler, *prefix, **four) as function,
        ThreadPoolExecutor(4) as pool,
    ):
        assert function.chat("sk-kg-none").status == 401  # until the first poll it starts, and refuses others
        asked: list[Future[Answered]] = []
        while len(asked) < 4:  # one after the other: the emulator may hang once it refused one of many
            asked.append(pool.submit(function.chat, key, stream=True))
            up.until(lambda: len(up.chats) == len(asked) or any(each.done() for each in asked))
        assert len(up.chats) == 4, function.log.read_text()  # all are at the upstream, none has its answer
        for gate in gates:
            gate.let(100)
        texts = [text_of(each.result(30).body.decode()) for each in asked]
    assert texts == [TEXT] * 4
    assert function.log.read_text().count('"event": "started"') == 1
    assert store.account(key).credits == 6
