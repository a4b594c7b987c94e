"""The tokens of vendors: what is stored by hand may name an address that the vendor lacks."""

from __future__ import annotations

from typing import Any

from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.providers.tokens.outages import LocalOutageLog
from kimi_gateway.providers.vendors import KeptTokens, Vendors
from kimi_gateway.settings import Settings


def test_a_token_for_no_address_is_left_out(caplog: Any) -> None:
    kept = {"qwen": ("tok-1", "uss=sk-secret-1234", "us=tok-2", "us=")}
    client: Any = None
    vendors = Vendors(Catalog(), Settings(), client, KeptTokens(lambda: kept), LocalOutageLog(), lambda: 0.0)
    row = Catalog().vendor("qwen")
    assert row is not None
    with caplog.at_level("ERROR", "kimi_gateway"):
        assert [token.secret for token in vendors.tokens(row, "")] == ["tok-1", "tok-2"]
    (line,) = caplog.records
    assert "the addresses of qwen are: intl, cn, us" in line.fields["detail"]
    assert "secret" not in str(line.fields)
