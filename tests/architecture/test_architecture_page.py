"""docs/architecture.md against the tree: what it names exists, and its layers are those that are enforced."""

from __future__ import annotations

import re
import tomllib

import pytest

from support import ROOT
from support.mermaid import BadPicture, parse, pictures

PACKAGE = ROOT / "functions" / "kimi_gateway"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def named() -> set[str]:
    """The files and folders of the package that the page names, but for those that a recipe makes."""
    found = set(re.findall(r"(?<!New file )`((?:[a-z_0-9]+/)*[a-z_0-9]+(?:\.py)?)`", PAGE))
    top = {each.name for each in PACKAGE.iterdir()}
    return {each for each in found if each.split("/")[0] in top}


def test_every_file_that_the_page_names_is_there() -> None:
    assert len(named()) > 20
    assert [each for each in named() if not (PACKAGE / each).exists()] == []


def test_the_pictures_can_be_drawn_and_hang_together() -> None:
    path, credit, owners = pictures(PAGE)
    assert (path.kind, credit.kind, owners.kind) == ("flowchart", "stateDiagram-v2", "erDiagram")
    assert path.nodes == set(path.labels), "a part without a text"
    assert path.reached("home") | path.reached("aws") == path.nodes
    assert credit.reached("[*]") == credit.nodes
    assert all("[*]" in credit.reached(state) for state in credit.nodes), "a credit that stays for ever"
    entities = owners.reached("ACCOUNT")
    assert {"KEY", "GRANT"} <= entities
    assert not entities & owners.reached("POOL"), "accounts and tokens are apart"


def test_every_picture_of_the_docs_can_be_drawn() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = [page.read_text("utf-8") for page in pages]
    assert sum(len(list(pictures(text))) for text in texts) == sum(text.count("```mermaid") for text in texts)


@pytest.mark.parametrize(
    "text",
    [
        "graph\n",
        'flowchart TD\n    a["x" --> b',
        'flowchart TD\n    a["x"] -> b',
        'flowchart TD\n    end["x"] --> b["y"]',
        'flowchart TD\n    a["x"] --> b["y"]\n    a["z"] --> b',
        "stateDiagram-v2\n    [*] --> a: x\n    a -> b",
        "erDiagram\n    A ||--o{ B",
        "erDiagram\n    A ||--o{ B : has two",
        "erDiagram\n    A |--o{ B : has",
    ],
)
def test_a_broken_picture_is_refused(text: str) -> None:
    with pytest.raises(BadPicture):
        parse(text)


def test_every_part_of_the_picture_is_there() -> None:
    parts = re.findall(r"\"([a-z_0-9]+(?:/[a-z_0-9]+)*)(?:: | and |, |\")", next(pictures(PAGE)).source)
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
