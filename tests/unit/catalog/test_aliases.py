"""Aliases from the environment: which one wins, what they never replace, and circles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kimi_gateway.catalog.catalog import Catalog, CatalogFault, load


def ends(*aliases: tuple[str, str]) -> Catalog:
    return load(None, aliases=aliases)


def id_of(catalog: Catalog, name: str) -> str | None:
    row = catalog.find(name)
    return None if row is None else row.id


def test_the_first_match_wins_and_no_real_name_is_replaced() -> None:
    catalog = ends(("claude-haiku-*", "kimi-k2.6"), ("claude-*", "kimi-k3"), ("*", "kimi-k2"))
    assert id_of(catalog, "claude-haiku-4-5") == "kimi-k2.6"
    assert id_of(catalog, "claude-opus-4") == "kimi-k3"
    assert id_of(catalog, "gpt-5") == "kimi-k2"
    for row in Catalog().rows:
        assert id_of(catalog, row) == row
    vendor = catalog.find("qwen/qwen3.8-max")
    assert vendor is not None
    assert vendor.provider == "qwen"


def test_an_alias_may_lead_to_another() -> None:
    catalog = ends(("best", "claude-best"), ("claude-*", "kimi-k3"))
    assert id_of(catalog, "best") == "kimi-k3"
    assert catalog.named == {"best": "kimi-k3"}


@pytest.mark.parametrize(
    "aliases",
    [[("a", "b"), ("b", "a")], [("a", "a")], [("gpt-*", "gpt-5")], [("a", "b"), ("b", "c"), ("c", "b")]],
    ids=str,
)
def test_a_circle_is_refused_with_its_way(aliases: list[tuple[str, str]]) -> None:
    with pytest.raises(CatalogFault, match=r"KIMI_GATEWAY_ALIASES is wrong: .*circle.* → "):
        ends(*aliases)


def test_an_alias_of_nothing_names_the_nearest_model() -> None:
    with pytest.raises(CatalogFault, match=r"'gpt-\*' points to 'kimi-k33', which is not .*'kimi-k3'"):
        ends(("gpt-*", "kimi-k33"))


def test_aliases_of_the_environment_come_before_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"aliases": {"gpt-*": "kimi-k2.6", "other": "kimi-k2"}}))
    catalog = load(file, aliases=[("gpt-*", "kimi-k3")])
    assert (id_of(catalog, "gpt-5"), id_of(catalog, "other")) == ("kimi-k3", "kimi-k2")
