"""What is wrong with a body is said in words that name the way out."""

from __future__ import annotations

import pytest

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot.fields import json_object


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "The body is empty; send a JSON object."),
        (b" \r\n", "The body is empty; send a JSON object."),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark; send UTF-8 without one"),
        (b'{"a" 1}', "Expecting ':' delimiter"),
        (b"[]", "The body must be a JSON object."),
    ],
)
def test_a_body_that_is_no_object_is_told_why(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        json_object(raw)
    assert text in refused.value.message
