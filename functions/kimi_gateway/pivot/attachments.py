"""Attachments of a request's messages, and their form upstream.

A dialect lists the attachments of a body without any I/O (pivot/dialect.py); `files/` resolves them, and the
dialect puts the results in their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from typing import Literal, Protocol

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import GatewayError

Kind = Literal["image", "video", "document", "any"]

LONGEST_REASON = 300  # characters; a reason may quote the client


@dataclass(frozen=True, slots=True)
class Inline:
    """`data` is valid base64, without a prefix."""

    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https address as the client wrote it. It may contain a signature, so it is never shown."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileId:
    """The gateway's own id of a file."""

    id: str


@dataclass(frozen=True, slots=True)
class PlainText:
    text: str = field(repr=False)


Source = Inline | Address | FileId | PlainText


@dataclass(frozen=True, slots=True)
class Attachment:
    """`field` is the path in the client's body, for errors. `kind` is what the place accepts; "any" leaves it
    to the content. `filename` and `media_type` are the client's, if given. `told`: a sentence for the model
    replaces unreadable content, because a 400 would end the session."""

    field: str
    kind: Kind
    source: Source
    filename: str | None = None
    media_type: str | None = None
    told: bool = False


@dataclass(frozen=True, slots=True)
class DocumentText:
    """A document's text, the same for the same bytes. `filename` is None if nobody named it."""

    filename: str | None
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MediaUrl:
    """A `data:` or `ms://` address that the upstream accepts. A "file" is a document with its `name`, for an
    upstream that takes documents within the request."""

    url: str = field(repr=False)
    kind: Literal["image", "video", "file"] = "image"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The sentence for the model in place of unreadable content."""

    sentence: str


Resolved = DocumentText | MediaUrl | Unreadable
Results = Sequence[Resolved]  # one for each attachment, in their order

_NOUNS: dict[Kind, str] = {"image": "picture", "video": "video", "document": "document", "any": "file"}


def unreadable(attachment: Attachment, error: GatewayError) -> Unreadable:
    """The replacement of an unreadable attachment. Raises the error if its place allows none, and if the
    attachment is not at fault, so that the client may try again."""
    if not attachment.told or error.status >= 500 or error.status == 429:
        raise error
    return instead_of(_NOUNS[attachment.kind], error)


def instead_of(noun: str, error: GatewayError) -> Unreadable:
    """The sentence with the error's reason, without the client's field."""
    why = error.message.removeprefix(f"{error.param}: ")[:LONGEST_REASON].rstrip(".")
    return Unreadable(f"[A {noun} was here that cannot be shown: {why}.]")


Ids = frozenset[str]  # of upstream tokens
NO_IDS: Ids = frozenset()


class Resolution(Protocol):
    """The results for the attachments of a turn. `token` is the id of the upstream token that has its files
    and to which the turn is bound; None if any token will do. `movable`: all of these files can be uploaded
    again with another token."""

    @property
    def results(self) -> Results: ...

    @property
    def token(self) -> str | None: ...

    @property
    def movable(self) -> bool: ...


class Resolver(Protocol):
    def resolve(
        self, account: str, attachments: Sequence[Attachment], without: Ids = NO_IDS
    ) -> AbstractAsyncContextManager[Resolution]:
        """Resolve attachments; keep the context open while the turn runs. Its uploads are deleted afterwards,
        and use no token of `without` (ids).
        Raises GatewayError naming the attachment's field; what is the fault of a `told` one becomes
        Unreadable."""
        ...
