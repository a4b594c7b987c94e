"""Installs each program, tries it in a namespace of its own, and writes what came of it into docs/clients.md.

`python -m programs [NAME…]`; without names all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from programs.catalog import PROGRAMS, ROOT, version
from programs.install import install

PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- tried: scripts/clients writes this -->", "<!-- /tried -->"
SECONDS = 600  # for one program
NAMESPACE = ["unshare", "--map-root-user", "--net", "--mount"]


@dataclass(frozen=True)
class Result:
    """`tests`: sentence → held. `calls`: what it sent. `names`: hosts that it looked up in vain."""

    name: str
    seconds: float
    tests: dict[str, bool] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return bool(self.tests) and all(self.tests.values())


def main(names: list[str]) -> int:
    if unknown := set(names) - PROGRAMS.keys():
        print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    if refused := _refused():
        print(f"no network namespace can be made here, so nothing is run: {refused}", file=sys.stderr)
        return 2
    results = []
    for name in names or list(PROGRAMS):
        install(name)
        results.append(attempt(name))
        print(line(results[-1]), flush=True)
    PAGE.write_text(rewritten(PAGE.read_text("utf-8"), results), "utf-8")
    return 0 if all(result.good for result in results) else 1


def _refused() -> str:
    """Why no program can be kept off the network on this machine, empty where it can."""
    try:
        done = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unshare is missing (Linux, util-linux)"
    return done.stderr if done.returncode else ""


def attempt(name: str) -> Result:
    """One program in its namespace; what pytest says goes to the terminal where a test fails."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        pytest = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--tb=short",
            f"tests/programs/{name}/check.py",
        ]
        try:
            done = subprocess.run(
                [*NAMESPACE, *pytest, f"--result={file}"],
                cwd=ROOT, timeout=SECONDS, capture_output=True, text=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Result(name, time.monotonic() - began, {f"ends within {SECONDS} s": False})
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
        found = json.loads(file.read_text()) if file.exists() else {"tests": {"is tried": False}}
    return Result(name, time.monotonic() - began, **found)


def line(result: Result) -> str:
    """A row of the table: program, version and day, what held, what it sent, whom it looked for."""
    tests = "; ".join(("" if held else "**not:** ") + sentence for sentence, held in result.tests.items())
    calls = "<br>".join(f"`{call}`" for call in result.calls)
    title = f"{PROGRAMS[result.name].title} {version(result.name)}"
    return (
        f"| {title} | {datetime.now(UTC):%Y-%m-%d} | {tests} | {calls} | {', '.join(result.names) or '–'} |"
    )


def rewritten(page: str, results: list[Result]) -> str:
    """The page with the rows of these programs; those of others stay as they are."""
    before, rest = page.split(BEGIN)
    table, after = rest.split(END)
    head, rows = table.strip().splitlines()[:2], table.strip().splitlines()[2:]
    tried = {PROGRAMS[result.name].title: line(result) for result in results}
    kept = [row for row in rows if not row.startswith(tuple(f"| {title} " for title in tried))]
    lines = [*head, *sorted([*kept, *tried.values()], key=str.lower)]
    return before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
