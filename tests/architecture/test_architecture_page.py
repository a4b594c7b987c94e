"""docs/architecture.md against the tree: what it names exists, and its layers are those that are enforced."""

from __future__ import annotations

import re
import tomllib

from support import ROOT

PACKAGE = ROOT / "functions" / "kimi_gateway"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def named() -> set[str]:
    """The files and folders of the package that the page names."""
    found = set(re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+(?:\.py)?)`", PAGE))
    top = {each.name for each in PACKAGE.iterdir()}
    return {each for each in found if each.split("/")[0] in top}


def test_every_file_that_the_page_names_is_there() -> None:
    assert len(named()) > 20
    assert [each for each in named() if not (PACKAGE / each).exists()] == []


def test_every_part_of_the_picture_is_there() -> None:
    parts = re.findall(r"\"([a-z_0-9]+(?:/[a-z_0-9]+)*)(?:: | and |, |\")", PAGE)
    there = [part for part in parts if (PACKAGE / part).exists() or (PACKAGE / f"{part}.py").exists()]
    assert len(there) >= 12
    assert there == parts


def test_the_layers_are_those_that_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (layers,) = [each["layers"] for each in project["tool"]["importlinter"]["contracts"] if "layers" in each]
    enforced = [{part.split(".")[-1] for part in re.split(r" \| ", layer)} for layer in layers]
    table = PAGE.partition("## Layers")[2].partition("## Words")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.M)
    told = [{word.removesuffix(".py") for word in re.findall(r"`(.*?)`", row)} for row in rows]
    assert told == enforced


def test_every_folder_of_the_package_is_in_a_layer() -> None:
    table = PAGE.partition("## Layers")[2].partition("## Words")[0]
    told = set(re.findall(r"`([a-z_]+)(?:\.py)?`", table))
    there = {each.stem for each in PACKAGE.iterdir() if each.name[0] not in "_."}
    assert there <= told


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([a-z-]+\.md)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
