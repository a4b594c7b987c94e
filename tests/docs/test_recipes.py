"""The recipes of docs/architecture.md, carried out on a copy of the package, and what they make of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
_STEP = re.compile(r"^(?:New file|In) `([\w/.]+)`:\n\n```(python|diff)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Step:
    """A new file, or a change of a file's lines that stand there once."""

    file: str
    kind: str
    code: str

    def take(self, package: Path) -> None:
        file = package / self.file
        if self.kind == "python":
            assert not file.exists()
            file.write_text(self.code, "utf-8")
            return
        lines = self.code.splitlines(keepends=True)
        assert {line[0] for line in lines} <= set(" +-")
        old = "\n" + "".join(line[1:] for line in lines if line[0] != "+")
        new = "\n" + "".join(line[1:] for line in lines if line[0] != "-")
        text = "\n" + file.read_text("utf-8")
        assert text.count(old) == 1, f"{self.file} does not have these lines once: {old}"
        file.write_text(text.replace(old, new).removeprefix("\n"), "utf-8")


def recipe(name: str) -> list[Step]:
    section = PAGE.partition("## Recipes")[2].partition(f"### {name}\n")[2].partition("\n### ")[0]
    steps = [Step(*each.groups()) for each in _STEP.finditer(section)]
    assert 2 * len(steps) == len(re.findall(r"^```", section, re.M)) > 0, "a step of another form"
    return steps


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    without = shutil.ignore_patterns("__pycache__")
    for name in ("functions", "docs", "infra"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=without)
    return tmp_path


def carried_out(copy: Path, name: str) -> set[str]:
    """The files that were touched; they are left as the formatter and the linter want them."""
    steps = recipe(name)
    for step in steps:
        step.take(copy / "functions" / "kimi_gateway")
    touched = sorted({f"functions/kimi_gateway/{step.file}" for step in steps})
    ruff, options = Path(sys.executable).with_name("ruff"), ["--config", str(ROOT / "pyproject.toml")]
    for check in (["format", "--check"], ["check", "--no-cache"]):
        done = subprocess.run([ruff, *check, *options, *touched], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return {step.file for step in steps}


def run(copy: Path, code: str, *command: str) -> str:
    environ = {**os.environ, "PYTHONPATH": f"{copy / 'functions'}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, *(command or ("-c", code))], env=environ, cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names() -> Iterator[str]:
    yield from re.findall(r"^### (.+)$", PAGE.partition("## Recipes")[2], re.M)


MODEL = """
from support.inprocess import InProcess
from kimi_gateway.catalog.models import ROWS, cost
with InProcess() as gateway:
    key = gateway.key()
    assert gateway.call("GET", "/v1/models/kimi-k9", key=key).json["context_length"] == 1_048_576
    assert gateway.chat(key, {"model": "kimi-k9", "reasoning_effort": "low"}).status == 200
    assert gateway.client.chats[-1].body["model"] == "kimi-k9"
(row,) = [row for row in ROWS if row.id == "kimi-k9"]
assert cost("moonshot", row, 1_000_000, 0, 0) == (3.5, "USD")
"""


def test_a_model_is_one_row_in_one_file_and_the_page_follows(copy: Path) -> None:
    assert carried_out(copy, "Add a model") == {"catalog/models.py"}
    run(copy, MODEL)
    run(copy, "", "infra/models_table.py")
    assert "| `kimi-k9` | `kimi-k9` | 1,048,576 |" in (copy / "docs" / "upstream.md").read_text("utf-8")


VENDOR = """
import logging
from support.inprocess import InProcess
body = {"model": "acme-1", "temperature": 1.5, "tools": [
    {"type": "function", "function": {"name": "a.b", "parameters": {"type": ["object", "null"]}}}
]}
with InProcess(acme_api_key=("sk-acme-1",)) as gateway:
    key = gateway.key()
    urls, send = [], gateway.client.send
    gateway.client.send = lambda method, url, *more: (urls.append(url), send(method, url, *more))[1]
    for stream in (True, False):
        assert gateway.chat(key, {**body, "stream": stream}).status == 200
    for sent in gateway.client.chats:
        assert sent.headers["authorization"] == "Bearer sk-acme-1"
        assert (sent.body["temperature"], sent.body["tools"]) == (1.5, body["tools"])
    assert urls == ["https://api.acme.example/v1/chat/completions"] * 2
    assert gateway.chat(key, {}).status == 200
    assert gateway.client.chats[-1].headers["authorization"] == "Bearer sk-upstream-1"
    assert gateway.account(key).credits == 97
from kimi_gateway.observe import redact
assert "sk-acme-1" not in redact("sk-acme-1")
from kimi_gateway import settings
assert settings.read({"ACME_API_KEY": "sk-a, sk-b"}).acme_api_key == ("sk-a", "sk-b")
"""


def test_a_vendor_gets_chats_by_its_own_rules_with_its_own_tokens(copy: Path) -> None:
    carried_out(copy, "Add a vendor")
    run(copy, VENDOR)


ROUTE = """
from support.inprocess import InProcess
with InProcess() as gateway:
    key = gateway.key()
    told = gateway.call("GET", "/api/v1/whoami", key=key).json
    account = gateway.account(key)
    assert told == {"key": account.keys[0].id, "account": account.id}
    assert gateway.call("GET", "/v1/whoami").status == 401
    assert gateway.call("POST", "/v1/whoami", key=key).headers["allow"] == "GET, HEAD, OPTIONS"
"""


def test_a_route_has_methods_errors_and_authentication_at_once(copy: Path) -> None:
    carried_out(copy, "Add a route")
    run(copy, ROUTE)


DIALECT = r"""
import json
from support.inprocess import InProcess, streamed, told
from upstream import chat_events
from upstream.kimi import error
with InProcess() as gateway:
    key = gateway.key()
    gateway.client.answer = lambda sent: streamed(*chat_events("Hello you", model="kimi-k3"))
    body = {"model": "kimi-k3", "prompt": "Say hello", "temperature": 1}
    whole = gateway.call("POST", "/v1/completions", body, key)
    (choice,) = whole.json["choices"]
    assert choice == {"index": 0, "text": "Hello you", "finish_reason": "stop"}
    assert (whole.json["object"], whole.json["usage"]["total_tokens"] > 0) == ("text_completion", True)
    sent = gateway.client.chats[-1].body["messages"]
    assert sent == [{"role": "user", "content": "Say hello"}]
    text = gateway.call("POST", "/v1/completions", {**body, "stream": True}, key).body.decode()
    *events, done = text.split("\n\n")[:-1]
    pieces = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    assert "".join(piece["text"] for piece in pieces) == "Hello you"
    assert (pieces[-1]["finish_reason"], done) == ("stop", "data: [DONE]")
    assert gateway.account(key).credits == 98
    wrong = gateway.call("POST", "/v1/completions", {"model": "kimi-k3", "prompt": 1}, key)
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "prompt")
    gateway.client.answer = lambda sent: told(error("server_error", "no"), 500)
    assert gateway.call("POST", "/v1/completions", body, key).status == 503
    assert gateway.account(key).credits == 98
"""


def test_a_dialect_answers_in_json_and_as_a_stream_and_is_charged(copy: Path) -> None:
    carried_out(copy, "Add a dialect")
    run(copy, DIALECT)


def test_every_recipe_is_carried_out_here() -> None:
    here = Path(__file__).read_text("utf-8")
    found = list(names())
    assert len(found) == 4
    assert [name for name in found if f'carried_out(copy, "{name}")' not in here] == []
