"""Any order of steps keeps the books straight, and every store answers as the memory store does."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from support.books import LONG
from support.examples import examples
from support.paying import Paying


@pytest.mark.hypothesis
def test_the_books_balance_on_sqlite() -> None:
    run_state_machine_as_test(Paying, settings=LONG)  # type: ignore[no-untyped-call]


@pytest.mark.hypothesis
def test_the_books_balance_on_dynamodb(dynalite_url: str) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Paying(dynalite_url), settings=settings(LONG, max_examples=examples(16))
    )
