"""One Chromium for many tests, steered by Playwright in a process of Node."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from docs.browser import program
from support import npm

HERE = Path(__file__).parent / "chromium"


class BrowserError(Exception):
    """A step failed in the browser; the text says where."""


class Browser:
    """`with Browser() as browser: browser.run("kept.page = await tab(); …")`.

    The code is the body of an async function. It has `tab(options)`, which opens a page of its own;
    `faults(page)`, what axe-core finds; `copiedBy(button)`, what a copy button puts on the clipboard; `kept`,
    an object that lasts between steps; `args`; and `seen`, which lists what should not happen: errors,
    dialogs, violations of the policy, requests to other hosts. The result must be JSON.
    """

    def __enter__(self) -> Self:
        npm.install(HERE)
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self._process = subprocess.Popen(
            ["node", str(HERE / "driver.mjs"), program()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        assert self._line() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, code: str, **args: Any) -> Any:
        """Raises BrowserError."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"code": code, "args": args}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._line())
        if "error" in answer:
            raise BrowserError(f"{answer['error']}\nseen: {answer['seen']}")
        return answer["result"]

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")
