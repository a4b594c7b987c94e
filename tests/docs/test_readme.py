"""The README does what it says: its commands run, its tables are the program's."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from docs import readme
from kimi_gateway import settings
from support import ROOT

README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tracked files as they are, with this .venv; scripts/try-readme tries it with a fresh one."""
    folder = tmp_path / "clone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv" / ".locks").mkdir(parents=True)
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(ROOT / ".venv" / part)
    stamp = "touch .venv/.locks/dev-$(cat requirements/dev.txt pyproject.toml | cksum | tr ' ' -)"
    subprocess.run(["bash", "-c", stamp], cwd=folder, check=True)  # or it would install itself over this one
    return folder


def test_every_block_of_the_readme_runs_in_order(clone: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KIMI", "MOONSHOT"))}
    ran = readme.run(clone, port, {**environ, "KIMI_GATEWAY_DATA": str(tmp_path / "data")})
    assert [(block.code, block.output) for block in ran if block.status] == []
    assert len(ran) == len(readme.blocks(README))
    streamed, said = ran[1].output, ran[3].output
    assert "data: [DONE]" in streamed
    assert "demo provider" in said


def test_the_settings_table_has_every_setting_with_its_default(tmp_path: Path) -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", README, re.M))
    assert set(rows) == set(settings.FIELDS)
    values = settings.read({"HOME": str(tmp_path)})
    for name, shown in rows.items():
        attribute, parse = settings.FIELDS[name]
        default = getattr(values, attribute)
        if shown == "–":
            assert not default
        elif name == "KIMI_GATEWAY_DATA":
            assert default == tmp_path / shown.strip("`").removeprefix("~/")
        else:
            assert parse(shown.strip("`")) == default


def test_every_path_of_the_readme_is_served() -> None:
    from kimi_gateway.edge.routes import routes

    class Anything:
        def __getattr__(self, name: str) -> Anything:
            return self

    table = routes(Anything(), Anything())  # type: ignore[arg-type]
    served = {re.sub(r"\{\w+\+?\}", "{id}", path) for route in table for path in (route.path, *route.aliases)}
    rows = README.partition("| Path (also below")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(?:GET |POST )?(/[^`]*)`", rows.partition("\n")[2])) == served


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
