"""docs/clients.md says of each program what was tried, and of which version."""

from __future__ import annotations

import pytest

from programs.__main__ import PAGE, Result, line, rewritten
from programs.catalog import PROGRAMS, version

ROWS = [row for row in PAGE.read_text("utf-8").splitlines() if row.startswith("| ")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_was_tried_in_the_version_of_its_lock_and_held(name: str) -> None:
    [row] = [row for row in ROWS if row.startswith(f"| {PROGRAMS[name].title} {version(name)} |")]
    assert "**not:**" not in row


def test_a_new_result_takes_the_place_of_its_programs_row_only() -> None:
    page = PAGE.read_text("utf-8")
    new = Result(
        "aider", 1.0, {"it edits": True, "it is shown": False}, ["POST /v1/x"], ["a package registry"]
    )
    changed = rewritten(page, [new])
    assert set(changed.splitlines()) - set(page.splitlines()) == {line(new)}
    assert "it edits; **not:** it is shown" in line(new)
    assert len(changed.splitlines()) == len(page.splitlines())
