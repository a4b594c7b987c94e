"""Where a program is tried: `kimi-gateway serve` behind a tap, the emulator behind it, and fresh folders."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from programs.tap import Sent, Tap
from support.server_process import ServerProcess
from upstream import Request, ScriptedUpstream, ToolLoop
from upstream.kimi import REASONING

CREDITS = 100
Run = Callable[
    ["Stage", str], tuple[int, str]
]  # one task with this key: the exit code and all that was printed
WRONG = "sk-kg-" + "x" * 38


@dataclass
class Stage:
    """`work` is where the program works, `home` what it takes for its user's home; `installed` is a
    `node_modules` or the `bin` of a Python environment.
    """

    installed: Path
    home: Path
    work: Path
    upstream: ScriptedUpstream
    server: ServerProcess
    tap: Tap
    key: str
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The gateway, without a path."""
        return self.tap.url

    @property
    def sent(self) -> list[Sent]:
        """What the program sent to the gateway."""
        return self.tap.requests

    @property
    def asked(self) -> list[Request]:
        """What the gateway sent to the upstream's chat."""
        return self.upstream.chats

    @property
    def paid(self) -> int:
        account = self.server.account(self.key)
        assert account.reserved == 0
        return CREDITS - account.credits

    def calls(self) -> list[str]:
        """Each kind of request of the program, once."""
        return sorted({f"{sent.method} {sent.target}" for sent in self.sent})

    def run(
        self, *command: str | Path, seconds: float = 120, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """To its end, with an environment of its own; after `seconds` it and its children are killed."""
        own = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "TERM": "dumb", "LANG": "C.UTF-8",
            **self.environ, **environ,
        }  # fmt: skip
        with subprocess.Popen(
            command, env=own, cwd=self.work, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(stdin, seconds)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def written(stage: Stage, name: str, text: str, turns: int) -> None:
    """What every round trip shows: the file is there; so many chats had tools, the last with a result and
    with the reasoning of its call, whatever the program kept of it; all were streamed and each was paid,
    those beside the loop too.
    """
    assert (stage.work / name).read_text() == text
    loop = [request.body for request in stage.asked if request.body.get("tools")]
    assert len(loop) == turns
    *_, call, result = loop[-1]["messages"]
    assert (call["role"], result["role"]) == ("assistant", "tool")
    assert call["reasoning_content"] == REASONING
    assert all(request.body["stream"] for request in stage.asked)
    assert stage.paid == len(stage.asked)


def conversed(stage: Stage, told: list[Any], prompts: int) -> None:
    """What every conversation of an agent's SDK shows: `told` has a row for each prompt, as its program
    printed it: text, thought, and how many deltas of text came. Each prompt took a call and its result; each
    call of the history has its reasoning; ids are unique.
    """
    assert [row["text"] for row in told] == ["Done: it is written."] * prompts
    assert all(row["deltas"] > 1 for row in told)
    assert all(row["thoughts"] == [REASONING] * 2 for row in told)
    assert [(stage.work / f"{n}.txt").read_text() for n in range(1, prompts + 1)] == ["Hi 👋\n"] * prompts
    assert len(stage.asked) == stage.paid == 2 * prompts
    assert all(request.body["stream"] for request in stage.asked)
    calls = [message for message in stage.asked[-1].body["messages"] if message.get("tool_calls")]
    assert [call["reasoning_content"] for call in calls] == [REASONING] * prompts
    ids = [each["id"] for call in calls for each in call["tool_calls"]]
    assert len(ids) == len(set(ids)) == prompts


def writes_a_file(stage: Stage, run: Run, tool: str, arguments: dict[str, Any]) -> None:
    """A streamed tool call writes hello.txt and its result is sent back."""
    stage.upstream.always(ToolLoop([(tool, arguments)]))
    code, output = run(stage, stage.key)
    assert code == 0, output
    assert "Done." in output
    written(stage, "hello.txt", "Hi 👋\n", turns=2)


def shows_a_wrong_key(stage: Stage, run: Run) -> int:
    """The exit code."""
    code, output = run(stage, WRONG)
    assert "Invalid API key" in output
    assert not stage.asked
    return code
