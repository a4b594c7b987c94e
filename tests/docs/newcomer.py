"""What a newcomer does after the README, in a clone that is set up: `newcomer.py CLONE PORT`.

Prints each step; ends with 1 at the first that does not do what it should. Takes about half a minute.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser

KEY = re.compile(r"sk-kg-[0-9A-Za-z]{38}")


class Newcomer:
    def __init__(self, clone: Path, port: int) -> None:
        self.clone, self.port = clone, port
        self.work = clone / ".newcomer"
        self.work.mkdir(mode=0o700)
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("KIMI", "MOON"))
        }
        self.environ["KIMI_GATEWAY_DATA"] = str(self.work / "data")
        self.key = ""

    def say(self, text: str) -> None:
        print(f"newcomer: {text}", flush=True)

    @contextmanager
    def server(self, end: signal.Signals = signal.SIGTERM, **more: str) -> Iterator[str]:
        """scripts/serve in another terminal; what it printed."""
        command = ["scripts/serve", "--port", str(self.port)]
        environ = {**self.environ, **more}
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(
            command, cwd=self.clone, env=environ, text=True, stdout=pipe, stderr=null
        ) as server:
            assert server.stdout is not None
            try:
                printed = server.stdout.readline() + server.stdout.readline() + server.stdout.readline()
                if "Your key" not in printed:
                    printed += "" if "More keys" in printed else server.stdout.readline()
                while "More keys" not in printed and "curl" not in printed:
                    printed += server.stdout.readline()
                self._until_up(server)
                yield printed
            finally:
                server.send_signal(end)
                rest, _ = server.communicate(timeout=60)
            assert end != signal.SIGTERM or rest.strip().endswith("stopped"), rest

    def _until_up(self, server: subprocess.Popen[str]) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and server.poll() is None:
            try:
                self.get("/ping")
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return str(answer.read().decode())

    def chat(self, key: str) -> tuple[int, Any]:
        body = json.dumps({"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def cli(self, *words: str, fails: bool = False, **more: str) -> str:
        """A command in a second terminal; all that it printed."""
        self.say(f"  $ kimi-gateway {' '.join(words)}")
        command = [self.clone / ".venv/bin/kimi-gateway", *words]
        ran = subprocess.run(
            command, cwd="/", env={**self.environ, **more}, capture_output=True, text=True, timeout=120
        )
        assert (ran.returncode != 0) == fails, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def second_terminal(self) -> None:
        self.say("a second terminal: commands beside the running server")
        with self.server() as printed:
            self.key = KEY.findall(printed)[0]
            assert self.chat(self.key)[0] == 200
            made = json.loads(self.cli("keys", "create", "--name", "alice", "--credits", "1", "--json"))
            assert [self.chat(made["key"])[0] for _ in range(2)] == [200, 403]
            self.cli("accounts", "grant", "alice", "2")
            assert self.chat(made["key"])[0] == 200
            self.cli("accounts", "deduct", "alice", "1")
            assert self.chat(made["key"])[0] == 403
            assert "built-in demo answers" in self.cli("doctor")
            self.cli("backup", str(self.work / "backup"))

    def restart(self) -> None:
        self.say("a restart: the key still works, no new one is made")
        with self.server() as printed:
            assert not KEY.findall(printed)
            assert self.chat(self.key)[0] == 200

    def killed(self) -> None:
        self.say("kill -9, then a restore")
        with self.server(signal.SIGKILL):
            assert self.chat(self.key)[0] == 200
            self.cli("keys", "create", "--name", "bob")
            assert "Stop it first" in self.cli("restore", str(self.work / "backup"), fails=True)
        refused = self.cli("restore", str(self.work / "backup"), fails=True)
        line = refused.partition("into the database: ")[2].partition(" - and")[0]
        self.say(f"  $ {line}")
        subprocess.run(["sh", "-c", line], cwd="/", env=self.environ, check=True, stdout=subprocess.DEVNULL)
        self.cli("restore", str(self.work / "backup"))
        assert "bob" not in self.cli("keys", "list")
        with self.server():
            assert self.chat(self.key)[0] == 200

    def folder_before(self) -> None:
        self.say("a folder that was there before, open to others")
        folder = self.work / "srv"
        folder.mkdir()
        folder.chmod(0o755)
        refused = self.cli("serve", "--port", str(self.port), fails=True, KIMI_GATEWAY_DATA=str(folder))
        assert folder.stat().st_mode & 0o777 == 0o755
        named = re.search(r"export KIMI_GATEWAY_DATA=(\S+)", refused)
        assert named is not None, refused
        with self.server(KIMI_GATEWAY_DATA=named[1]) as printed:
            assert self.chat(KEY.findall(printed)[0])[0] == 200
        assert folder.stat().st_mode & 0o777 == 0o755

    def unreachable(self) -> None:
        self.say("an upstream that cannot be reached")
        more = {"MOONSHOT_API_KEY": "sk-newcomers-token-0123456789", "KIMI_BASE_URL": "http://127.0.0.1:9/v1"}
        with self.server(**more):
            assert json.loads(self.get("/health"))["status"] == "ok"
            status, told = self.chat(self.key)
            assert (status, "Not charged" in told["error"]["message"]) == (503, True), told
            assert json.loads(self.get("/health"))["status"] == "degraded"
            assert "environment" in self.cli("tokens", "list")
        assert "refuses connections" in self.cli("doctor", fails=True, **more)

    def offline_browser(self) -> None:
        self.say("a browser without the internet shows /docs")
        with self.server():
            page, console = browser.shown(f"http://127.0.0.1:{self.port}/docs", self.work / "profile")
            assert console == [], console
            assert "/v1/chat/completions" in page


def main() -> None:
    newcomer = Newcomer(Path(sys.argv[1]).absolute(), int(sys.argv[2]))
    steps = (
        *(newcomer.second_terminal, newcomer.restart, newcomer.killed, newcomer.folder_before),
        *(newcomer.unreachable, newcomer.offline_browser),
    )
    try:
        for step in steps:
            begun = time.monotonic()
            step()
            newcomer.say(f"  done in {time.monotonic() - begun:.1f} s")
    finally:
        shutil.rmtree(newcomer.work, ignore_errors=True)


if __name__ == "__main__":
    main()
