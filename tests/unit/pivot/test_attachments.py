"""What stands for an attachment that cannot be read."""

from __future__ import annotations

import pytest

from kimi_gateway.errors import BodyTooLarge, GatewayError, InvalidRequest, NotFound, RateLimited, Unavailable
from kimi_gateway.pivot.attachments import Address, Attachment, unreadable

THERE = "messages.1.content.0.source"


def attachment(told: bool) -> Attachment:
    return Attachment(THERE, "document", Address("https://a.example/b.pdf?signature=1"), told=told)


@pytest.mark.parametrize("kind", [InvalidRequest, NotFound, BodyTooLarge])
def test_words_stand_for_what_cannot_be_read_where_an_error_would_end_the_session(
    kind: type[GatewayError],
) -> None:
    error = kind(f"{THERE}: the file is empty.", param=THERE)
    assert unreadable(attachment(True), error).sentence == (
        "[A document was here that cannot be shown: the file is empty.]"
    )
    with pytest.raises(kind):
        unreadable(attachment(False), error)


@pytest.mark.parametrize("kind", [Unavailable, RateLimited])
def test_what_may_pass_is_an_error_everywhere(kind: type[GatewayError]) -> None:
    with pytest.raises(kind):
        unreadable(attachment(True), kind("The upstream is busy."))


def test_a_reason_has_a_bound() -> None:
    assert len(unreadable(attachment(True), InvalidRequest("x" * 5_000)).sentence) < 400


def test_an_address_is_never_shown() -> None:
    assert "signature" not in repr(attachment(True))
