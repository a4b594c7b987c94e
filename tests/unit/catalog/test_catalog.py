"""The table of models is sane, names find their rows, and a fault in the operator's file is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.catalog.catalog import Catalog, CatalogFault, load
from kimi_gateway.catalog.models import (
    FIXED_CACHE,
    FIXED_SAMPLING,
    IMAGE_TYPES,
    RETIRED,
    ROWS,
    Model,
    neutral,
)
from kimi_gateway.errors import InvalidRequest, ModelNotFound
from upstream.kimi import WINDOWS

BY_ID = {row.id: row for row in ROWS}


@pytest.mark.parametrize("row", [*ROWS, neutral("x")], ids=lambda row: row.id)
def test_a_row_is_sane(row: Model) -> None:
    assert row.id
    assert row.upstream
    assert 1 <= row.max_output <= row.refuse_output <= row.window
    assert 0 <= row.upstream_default <= row.window
    assert row.default_output is None or 1 <= row.default_output <= row.max_output
    assert row.created > 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_fits_what_runs_upstream(row: Model) -> None:
    assert row.upstream in WINDOWS
    assert row.window <= WINDOWS[row.upstream]
    assert row.upstream_default == BY_ID[row.upstream].upstream_default
    assert row.fixed - FIXED_CACHE == FIXED_SAMPLING
    assert (row.fixed >= FIXED_CACHE) == (not row.upstream.startswith("kimi-k3"))


def test_no_id_is_there_twice_and_none_is_retired() -> None:
    assert len(BY_ID) == len(ROWS)
    assert not BY_ID.keys() & RETIRED.keys()
    assert {instead for _, instead in RETIRED.values()} <= BY_ID.keys()
    assert "image/svg+xml" not in IMAGE_TYPES


def test_the_contracts_own_ids_keep_their_caps() -> None:
    for id, window in {"kimi-k2": 128_000, "kimi-k2-0905": 256_000}.items():
        row = BY_ID[id]
        assert (row.window, row.max_output, row.refuse_output, row.default_output) == (
            window,
            8_192,
            128_000,
            1_024,
        )
        assert not row.thinks


@pytest.mark.parametrize("id", BY_ID)
def test_every_id_is_found(id: str) -> None:
    assert Catalog().find(id) is BY_ID[id]


@pytest.mark.parametrize("name", ["", "kimi", "KIMI-K3", "kimi-k3 ", "kimi-k3[1m]", "[1m]", "kimi-k3[2m]"])
def test_names_are_exact(name: str) -> None:
    found = Catalog().find(name)
    assert found is (BY_ID["kimi"] if name == "kimi" else None)


def row_of(catalog: Catalog, name: str) -> Model:
    row = catalog.find(name)
    assert row is not None
    return row


def test_an_alias_may_hold_a_star_and_the_first_fit_wins() -> None:
    catalog = Catalog(aliases={"claude-*-fast": "kimi-k2.6", "claude-*": "kimi-k3", "kimi-k2": "kimi-k3"})
    assert row_of(catalog, "claude-haiku-fast").id == "kimi-k2.6"
    assert row_of(catalog, "claude-opus-4").id == "kimi-k3"
    assert row_of(catalog, "kimi-k2").id == "kimi-k2"
    assert catalog.find("Claude-opus") is None


def test_what_is_not_found_is_reported_by_its_kind() -> None:
    catalog = Catalog()
    unknown = catalog.unknown("kimi-k9[1m]", "kimi-k9")
    assert (type(unknown), unknown.param, "'kimi-k9[1m]'" in unknown.message) == (
        ModelNotFound,
        "model",
        True,
    )
    assert type(catalog.unknown("0123456789abcdefghij", "0123456789abcdefghij")) is InvalidRequest


def test_a_retired_id_names_the_day_and_the_nearest() -> None:
    for id, (day, instead) in RETIRED.items():
        message = Catalog().unknown(f"{id}[1m]", id).message
        assert day in message
        assert instead in message


def test_a_long_name_is_not_repeated_whole() -> None:
    name = "x" * 100_000
    assert len(Catalog().unknown(name, name).message) < 300


def file(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "models.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_rows_and_aliases_of_the_operator_join_the_table(tmp_path: Path) -> None:
    rows = [
        {"id": "mine", "like": "kimi-k2", "window": 9_000, "max_output": 100, "default_output": 50},
        {"id": "kimi-k3", "like": "kimi-k3", "max_output": 4_096},
        {"id": "raw", "upstream": "other-1", "fixed": ["temperature"]},
        {"id": "own-like", "like": "mine"},
    ]
    catalog = load(file(tmp_path, {"models": rows, "aliases": {"m": "mine", "c-*": "raw"}}))
    mine = row_of(catalog, "m")
    assert (mine.upstream, mine.window, mine.thinks) == ("kimi-k2.6", 9_000, False)
    assert row_of(catalog, "kimi-k3").max_output == 4_096
    assert row_of(catalog, "c-1").fixed == {"temperature"}
    assert row_of(catalog, "c-1").upstream == "other-1"
    assert row_of(catalog, "own-like").max_output == 100
    assert catalog.rows.keys() >= BY_ID.keys()


def test_without_a_file_the_table_is_the_built_in_one() -> None:
    assert load(None).rows == BY_ID


FAULTS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "JSON"),
    "a list": ([], "object"),
    "an unknown section": ({"model": []}, "model"),
    "models that are an object": ({"models": {}}, "models"),
    "a row that is a word": ({"models": ["x"]}, "models.0"),
    "no id": ({"models": [{"upstream": "kimi-k3"}]}, "models[0]: id"),
    "an id that is a number": ({"models": [{"id": 7}]}, "models[0]: id"),
    "an unknown field": ({"models": [{"id": "a"}, {"id": "b", "windows": 5}]}, "windows"),
    "the place of an unknown field": ({"models": [{"id": "a"}, {"id": "b", "windows": 5}]}, "models[1]"),
    "a number as a word": ({"models": [{"id": "a", "window": "many"}]}, "window"),
    "a provider that is not there": ({"models": [{"id": "a", "provider": "other"}]}, "models[0].provider"),
    "an unknown way of thinking": ({"models": [{"id": "a", "thinking": "hard"}]}, "thinking"),
    "like nobody": ({"models": [{"id": "a", "like": "gpt-4"}]}, "models[0]: like names 'gpt-4'"),
    "like a list": ({"models": [{"id": "a", "like": ["kimi-k3"]}]}, "models[0]: like"),
    "no window": ({"models": [{"id": "a", "window": 0}]}, "models[0]: a needs window"),
    "a cap above what is refused": (
        {"models": [{"id": "a", "max_output": 9, "refuse_output": 8}]}, "max_output <= refuse_output",
    ),
    "a default above the cap": (
        {"models": [{"id": "a", "like": "kimi-k2", "max_output": 9}]}, "default_output of a",
    ),
    "an alias of nothing": ({"aliases": {"a": "gpt-4"}}, "aliases: 'a' points to 'gpt-4'"),
    "an alias that is a list": ({"aliases": {"a": []}}, "aliases.a"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_with_the_file_and_the_place(tmp_path: Path, case: str) -> None:
    content, place = FAULTS[case]
    path = file(tmp_path, content)
    with pytest.raises(CatalogFault) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert place in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogFault, match=r"nothing\.json"):
        load(tmp_path / "nothing.json")
