"""The operator's vendors in the models file."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.catalog import catalog
from kimi_gateway.catalog.catalog import CatalogFault
from kimi_gateway.catalog.vendors import QWEN, SPARK

LAN = {"id": "lan", "bases": "http://lan.test:8000/v1"}


def loaded(folder: Path, **document: Any) -> catalog.Catalog:
    file = folder / "models.json"
    file.write_text(json.dumps(document))
    return catalog.load(file)


def test_a_row_like_another_takes_its_values(tmp_path: Path) -> None:
    proxy = {"id": "proxy", "like": "qwen", "bases": {"x": "https://proxy.test/v1"}, "media": []}
    found = loaded(tmp_path, vendors=[proxy]).vendor("proxy")
    assert found is not None
    assert (found.errors, found.thinking, found.known) == (QWEN.errors, QWEN.thinking, QWEN.known)
    assert (found.bases, found.media) == ({"x": "https://proxy.test/v1"}, frozenset())


def test_an_alias_and_a_priced_model_of_a_vendor(tmp_path: Path) -> None:
    price = {"input": 1, "cached": 0.5, "output": 2}
    models = [
        {
            "id": "house",
            "provider": "lan",
            "upstream": "tiny",
            "window": 4096,
            "max_output": 512,
            "price": price,
        }
    ]
    known = loaded(
        tmp_path, vendors=[LAN], models=models, aliases={"gpt-*": "lan/other", "q": "qwen/qwen3.8-max"}
    )
    house, other, q = (known.find(name) for name in ("house", "gpt-4", "q"))
    assert house is not None
    assert (house.provider, house.window, house.price and house.price.output) == ("lan", 4096, 2)
    assert other is not None
    assert (other.provider, other.upstream, other.price) == ("lan", "other", None)
    assert q is not None
    assert q.price == QWEN.known[0].price


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"vendors": [{**LAN, "id": "Moon Shot"}]}, "vendors[0]: id must be"),
    ({"vendors": [{**LAN, "id": "moonshot"}]}, "vendors[0]: id must be"),
    ({"vendors": [{"id": "lan"}]}, "vendors[0].bases is missing"),
    ({"vendors": [{**LAN, "bases": "ftp://lan.test"}]}, "bases must be http(s)"),
    ({"vendors": [{**LAN, "bases": "http://me:pw@lan.test"}]}, "bases must be http(s)"),
    ({"vendors": [{**LAN, "bases": {}}]}, "bases is empty"),
    ({"vendors": [{**LAN, "models": ""}]}, "needs known models"),
    ({"vendors": [{**LAN, "reasonning": "x"}]}, 'did you mean "reasoning"?'),
    ({"vendors": [{**LAN, "thinking": "yes"}]}, "vendors[0].thinking"),
    ({"vendors": [{**LAN, "like": "qven"}]}, "like names 'qven'"),
    ({"vendors": [{**LAN, "checked": "soon"}]}, "checked must be a day"),
    ({"vendors": [{**LAN, "known": [{"id": "a", "base": "b"}]}]}, "names the base 'b'"),
    ({"aliases": {"a": "qven/x"}}, "points to 'qven/x'"),
    ({"aliases": {"a": "spark/unknown"}}, "points to 'spark/unknown'"),
    ({"models": [{"id": "a", "provider": "nobody"}]}, "models[0].provider"),
]


@pytest.mark.parametrize(("document", "said"), FAULTS)
def test_a_fault_of_a_row_names_its_place(tmp_path: Path, document: dict[str, Any], said: str) -> None:
    with pytest.raises(CatalogFault) as caught:
        loaded(tmp_path, **document)
    assert said in str(caught.value)


def test_a_vendors_model_has_no_price_of_the_platform() -> None:
    from kimi_gateway.catalog import models

    row = SPARK.row("4.0Ultra")
    assert row is not None
    assert models.price_of("spark", row) is None
    same_name = QWEN.row("kimi-k3")
    assert same_name is not None
    assert (models.price_of("qwen", same_name), models.cost("qwen", same_name, 1, 0, 1)) == (None, None)
    assert models.largest_window(same_name) == models.UNKNOWN_WINDOW


def test_the_age_of_a_row() -> None:
    assert SPARK.age(date(2026, 11, 28)) == 399
    assert QWEN.age(date(2026, 11, 28)) < 180


def test_a_name_without_a_vendor_is_told_at_the_start() -> None:
    with pytest.raises(CatalogFault, match="'qven' is not a vendor; did you mean 'qwen'"):
        catalog.load(None, {"qven": ["tok-1"]})
    catalog.load(None, {"qwen": ["tok-1"], "spark": ["tok-2"]})


@pytest.mark.parametrize("token", ["uss=sk-secret-1234", "us=", "us", "moonshot=sk-secret-1234"])
def test_a_token_for_no_address_of_its_vendor_is_told_at_the_start(token: str) -> None:
    """It would be sent whole to the first address."""
    with pytest.raises(CatalogFault, match="the addresses of qwen are: intl, cn, us") as caught:
        catalog.load(None, {"qwen": ["intl=tok-1", token]})
    assert "secret" not in str(caught.value)
    catalog.load(None, {"qwen": ["us=sk-secret-1234", "c2VjcmV0==", "a:b"], "metaso": ["us=sk-secret-1234"]})
