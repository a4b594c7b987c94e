"""SDKs that cannot live in this process (of Node, and old ones), each a process that takes JSON lines."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import ROOT, npm

FOREIGN = Path(__file__).with_name("foreign")


@dataclass(frozen=True)
class Outcome:
    """A value, or an exception: its class and the classes above, and the events seen before it."""

    value: Any = None
    classes: tuple[str, ...] = ()
    status: int | None = None
    code: str | None = None
    message: str = ""
    seen: tuple[Any, ...] = ()


class Driver:
    """`with Driver("node", "openai", base) as sdk: sdk("whole", key=…, body=…)`"""

    def __init__(self, language: str, sdk: str, base: str) -> None:
        self.name, self.base = sdk, base
        self._command = _node(sdk) if language == "node" else _old_python(sdk)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def __call__(self, verb: str, base: str | None = None, **order: Any) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": verb, "base": base or self.base, **order}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the SDK's process has ended"
        return Outcome(**json.loads(line))


def _node(sdk: str) -> list[str | Path]:
    """Node from the lock too, since the newest SDKs want one that Debian's is too old for."""
    node = next(npm.install(FOREIGN).glob("node-linux-*/bin/node"), Path("node"))
    return [node, FOREIGN / ("openai.mjs" if "openai" in sdk else "anthropic.mjs"), sdk]


def _old_python(sdk: str) -> list[str | Path]:
    subprocess.run([ROOT / "scripts/setup", f"old-{sdk}"], check=True)
    return [ROOT / f".venv-old-{sdk}/bin/python", FOREIGN / f"{sdk}_old.py"]
