"""The interface of a provider whose service keeps each request as a conversation, and of the one who deletes
them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from kimi_gateway.providers.provider import Token


class Conversations(Protocol):
    """The conversations of an account. Every method raises UpstreamFailure."""

    async def delete(self, token: Token, id: str) -> bool:
        """Whether it existed."""
        ...

    async def found(self, token: Token, mark: str, since: int) -> list[str]:
        """The ids of recent ones with a message of this mark, that were made after `since` (unix seconds)."""
        ...


class Trace(Protocol):
    """The record of one conversation."""

    async def known(self, id: str) -> None:
        """Its id is known now."""
        ...

    def end(self, begun: bool) -> None:
        """Delete the conversation later; unless it was `begun`, there is none."""
        ...


class Traces(Protocol):
    async def begin(self, token: Token, mark: str, conversations: Conversations) -> Trace:
        """Record a conversation that begins with the text of this mark. Raises UpstreamFailure."""
        ...


@runtime_checkable
class KeepsConversations(Protocol):
    @property
    def conversations(self) -> Conversations: ...
