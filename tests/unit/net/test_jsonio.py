"""A request goes on in the client's own words where nothing was changed, and reads the same everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.net import jsonio

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)
OBJECTS = st.dictionaries(st.text(), VALUES)


def written(value: Any, indent: int | None, ascii: bool) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")


@given(OBJECTS, st.sampled_from([None, 0, 3]), st.booleans())
def test_an_object_is_read_as_the_standard_reader_reads_it(
    value: dict[str, Any], indent: int | None, ascii: bool
) -> None:
    read, source = jsonio.loads_source(written(value, indent, ascii))
    assert read == value
    assert list(read) == list(value)
    assert source is not None


@given(OBJECTS, st.sampled_from([None, 3]), st.booleans(), OBJECTS, st.data())
def test_what_was_not_replaced_keeps_its_wording_and_the_rest_its_meaning(
    value: dict[str, Any], indent: int | None, ascii: bool, edits: dict[str, Any], data: st.DataObject
) -> None:
    raw = written(value, indent, ascii)
    read, source = jsonio.loads_source(raw)
    assert source is not None
    left_out = data.draw(st.sets(st.sampled_from(sorted(value)))) if value else set()
    edited = {name: member for name, member in read.items() if name not in left_out} | edits
    rewritten = jsonio.rewrite(edited, source)
    assert json.loads(rewritten) == edited
    for name, member in read.items():
        if name not in left_out and name not in edits and isinstance(member, list | dict):
            start, end = source.spans[name]
            assert raw.decode()[start:end].encode() in rewritten


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_what_the_standard_reader_refuses_is_refused(text: str) -> None:
    raw = text.encode("utf-8", "replace")
    try:
        json.loads(raw.decode())
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            jsonio.loads_source(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1,}',
        b'{"a": 1} x',
        b'{"a" 1}',
        b"{a: 1}",
        b'{"a": 1 "b": 2}',
        b'{"a": [1}',
        b'{"a":',
        b"{",
        b'{"a": 1',
    ],
)
def test_a_broken_object_is_refused_with_the_place(raw: bytes) -> None:
    with pytest.raises(ValueError, match="line 1 column"):
        jsonio.loads_source(raw)


def test_a_value_that_is_no_object_has_no_source() -> None:
    assert jsonio.loads_source(b" [1, 2] ") == ([1, 2], None)


@pytest.mark.parametrize(
    "unit", [b"words, " * 40, b"1,", b"[],", b'{"a":[', b"abc" * 50 + b"[{", b"\xe4\xbd\xa0"]
)
def test_separators_are_counted_alike_however_many_there_are(unit: bytes) -> None:
    for times in (1, 64, 1000):
        data = unit * times
        assert jsonio._separators(data) == sum(map(data.count, jsonio.SEPARATORS))


@pytest.mark.parametrize(("more", "refused"), [(-1, False), (0, False), (1, True)])
@pytest.mark.parametrize("padding", [0, 70 * jsonio.MOST_VALUES])
def test_the_bound_on_values_is_exact_in_dense_and_in_sparse_texts(
    more: int, refused: bool, padding: int
) -> None:
    separators = jsonio.MOST_VALUES + more  # one bracket, the others are commas
    data = b"[" + b"1," * (separators - 1) + b"1]" + b" " * padding
    assert jsonio.has_too_many_values(data) is refused


TEXTS = st.lists(
    st.sampled_from([",", '"', '","', "\n", "\\", "", "é", "\ud83d"]) | st.text(max_size=4), max_size=6
)


@given(TEXTS, st.sampled_from([b"\n", b",", b'","', b"}\n\ndata: {"]))
def test_texts_are_written_together_as_one_by_one(texts: list[str], between: bytes) -> None:
    assert jsonio.strings(texts, between) == between.join(map(jsonio.dumps, texts))
