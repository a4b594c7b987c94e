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


IGNORED = [
    ([("kimi-k3", "kimi-k2.6")], "'kimi-k3' is a model's own name"),
    ([("qwen/qwen3.8-max", "kimi-k3")], "'qwen/qwen3.8-max' is a model's own name"),
    ([("qwen/*", "kimi-k3")], "'qwen/\\*' is a model's own name"),
    ([("kimi-search", "kimi-k3")], "requests for 'kimi-search' ask for 'kimi' and options"),
    ([("claude-sonnet[1m]", "kimi-k3")], "requests for 'claude-sonnet\\[1m\\]' ask for 'claude-sonnet'"),
    ([("gpt-5:online", "kimi-k3")], "requests for 'gpt-5:online' ask for 'gpt-5'"),
    ([("gpt-*", "kimi-k3"), ("gpt-5", "kimi-k2.6")], "'gpt-5' has no effect behind 'gpt-\\*'"),
    ([("gpt-*", "kimi-k3"), ("gpt-5-*", "kimi-k2.6")], "'gpt-5-\\*' has no effect behind 'gpt-\\*'"),
    ([("gpt-?", "kimi-k3"), ("gpt-5", "kimi-k2.6")], "'gpt-5' has no effect behind 'gpt-\\?'"),
]


@pytest.mark.parametrize(("aliases", "said"), IGNORED, ids=str)
def test_an_alias_that_would_be_ignored_is_refused(
    tmp_path: Path, aliases: list[tuple[str, str]], said: str
) -> None:
    with pytest.raises(CatalogFault, match="KIMI_GATEWAY_ALIASES is wrong: aliases: " + said):
        ends(*aliases)
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"aliases": dict(aliases)}))
    with pytest.raises(CatalogFault, match=r"models\.json: aliases: " + said):
        load(file)


def test_a_model_of_the_operators_file_is_not_replaced_either(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"models": [{"id": "mine", "like": "kimi-k3"}]}))
    with pytest.raises(CatalogFault, match="'mine' is a model's own name"):
        load(file, aliases=[("mine", "kimi-k2.6")])


def test_an_alias_that_some_request_reaches_is_taken() -> None:
    for first, second in (("gpt-?", "gpt-*"), ("gpt-5", "gpt-*"), ("kimi-k3-x", "kimi-*"), ("a/b", "a/*")):
        ends((first, "kimi-k3"), (second, "kimi-k2.6"))
