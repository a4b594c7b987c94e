"""docs/vendors.md against the rows, and its recipe carried out."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

from kimi_gateway.catalog.vendor import Vendor
from support import ROOT
from support.inprocess import InProcess, Sent, Told, kimi, streamed
from upstream import chat_events

PAGE = ROOT / "docs" / "vendors.md"


def test_the_table_has_the_rows_of_today() -> None:
    sys.path.insert(0, str(ROOT / "infra"))
    import models_table

    text = PAGE.read_text("utf-8")
    assert models_table.vendors_written(text) == text, "run scripts/models"


def test_each_member_of_a_row_is_explained() -> None:
    table = PAGE.read_text("utf-8").partition("| member |")[2]
    named = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.M))))
    assert {each.name for each in dataclasses.fields(Vendor)} == named


def test_the_recipe_adds_a_vendor_in_ten_lines(tmp_path: Path) -> None:
    recipe = PAGE.read_text("utf-8").partition("## Add a vendor in ten lines")[2]
    text = re.findall(r"^```json\n(.*?)^```$", recipe, re.M | re.S)[0]
    assert len(text.strip().splitlines()) <= 10
    file = tmp_path / "models.json"
    file.write_text(text)
    (vendor,) = json.loads(text)["vendors"]

    def answer(sent: Sent) -> Told:
        if sent.path == "/v1/chat/completions" and "authorization" not in sent.headers:
            return streamed(*chat_events("<think>hm</think>yes"))
        return kimi(sent)

    with InProcess(models=file) as gateway:
        gateway.client.answer = answer
        key = gateway.key()
        for model in ("lan/tiny", "house", "lan/another"):
            message = gateway.chat(key, {"model": model}).json["choices"][0]["message"]
            assert (message["content"], message["reasoning_content"]) == ("yes", "hm")
        assert gateway.call("GET", "/v1/models/lan/tiny", key=key).json["context_length"] == 32_768
        assert gateway.chat(key, {"model": "kimi-k3"}).json["choices"][0]["message"]["content"] != "yes"
    assert vendor["bases"].startswith("http://")
