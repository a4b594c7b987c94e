"""A turn that is bound to one upstream token: as the client sees it, in all formats."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kimi_gateway.providers.provider import Token, Upstream
from support.bound import BoundProvider
from support.formats import FORMATS, Format
from support.inprocess import InProcess, Sent, Told, kimi, told
from upstream import error

FIRST, SECOND = TOKENS = ("sk-upstream-1", "sk-upstream-2")


@pytest.fixture
def desk() -> Iterator[InProcess]:
    """Every call is bound to the first of two tokens."""
    with InProcess(moonshot_api_key=TOKENS) as desk:
        upstream = desk.directory.upstream()
        provider = BoundProvider(upstream.provider, Token.of(FIRST).id)
        bound = Upstream(provider, upstream.tokens)
        desk.directory.upstream = lambda: bound
        yield desk


def refusing(sent: Sent) -> Told:
    if sent.headers["authorization"].endswith(FIRST):
        return told(error("invalid_authentication_error", "Invalid Authentication"), 401)
    return kimi(sent)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_with_its_token_out_the_client_is_told_to_upload_again(
    desk: InProcess, format: Format, stream: bool
) -> None:
    key, body = desk.key(), format.asked(stream=stream)
    for _ in range(3):
        assert desk.call("POST", format.path, body, key).status == 200
    assert {sent.headers["authorization"] for sent in desk.client.chats} == {f"Bearer {FIRST}"}
    desk.client.sent.clear()
    desk.client.answer = refusing
    for _ in range(2):
        answer = desk.call("POST", format.path, body, key)
        assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")
        assert "Upload them again" in format.error(answer.json)["message"]
        assert len(desk.client.chats) == 1  # the second time the pool knows, and nobody is asked
    account = desk.account(key)
    assert (account.credits, account.reserved) == (97, 0)
