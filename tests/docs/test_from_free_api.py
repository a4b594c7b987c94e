"""docs/from-free-api.md says of each request what the gateway does with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.inprocess import InProcess

PAGE = (Path(__file__).parents[2] / "docs" / "from-free-api.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\{.*?\})` \|.*\| (\d{3}) \|$", PAGE, re.M)
PLAIN = {"model": "kimi", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


def test_the_table_was_found() -> None:
    assert len(ROWS) >= 14


@pytest.mark.parametrize(("members", "status"), ROWS)
def test_a_request_of_the_table_has_its_status(desk: InProcess, members: str, status: str) -> None:
    answer = desk.call("POST", "/v1/chat/completions", PLAIN | json.loads(members), desk.key(None))
    assert answer.status == int(status)


def test_several_tokens_in_a_request_are_not_a_key(desk: InProcess) -> None:
    tokens = "eyJ0b2tlbjE.a.b,eyJ0b2tlbjI.a.b"
    assert desk.call("POST", "/v1/chat/completions", PLAIN, tokens).status == 401
