"""A turn's attachments: resolved after admission, within one budget, and kept while the turn runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.catalog.models import Model
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import (
    GatewayError,
    InvalidRequest,
    PermissionDenied,
    Unavailable,
    UnreadableDocument,
    UnreadableImage,
)
from kimi_gateway.pivot import placement
from kimi_gateway.pivot.attachments import (
    Attachment,
    DocumentText,
    FileId,
    Inline,
    Kind,
    MediaUrl,
    PlainText,
    Resolution,
    Resolved,
    Resolver,
    Results,
    unreadable,
)
from kimi_gateway.providers.provider import Upstream

BUDGET = 120.0  # seconds for all attachments of one request


@dataclass(frozen=True, slots=True)
class Known:
    """Results that use no files of the gateway."""

    results: Results
    token: str | None = None
    movable: bool = False


class Files(Resolver, Protocol):
    """A resolver that can also serve one request: with its own tokens, and without keeping texts unless it
    `keeps`."""

    def of_request(self, upstream: Upstream, keeps: bool) -> Resolver: ...


NOTHING = Known(())
_UNREADABLE: dict[Kind, type[InvalidRequest]] = {"image": UnreadableImage, "document": UnreadableDocument}


class NoFiles:
    """The resolver of an upstream without files."""

    def of_request(self, upstream: Upstream, keeps: bool) -> Resolver:
        return self

    @asynccontextmanager
    async def resolve(
        self, account: str, attachments: Sequence[Attachment], without: frozenset[str] = frozenset()
    ) -> AsyncIterator[Resolution]:
        yield Known([_without_files(each) for each in attachments])


def _without_files(attachment: Attachment) -> Resolved:
    match attachment.source:
        case PlainText(text):
            return DocumentText(attachment.filename, text)
        case FileId(id) if attachment.kind in ("image", "video"):
            return MediaUrl(f"ms://{id}", "video" if attachment.kind == "video" else "image")
    where = attachment.field
    error = InvalidRequest(f"{where}: this upstream takes no files; send a text", param=where)
    return unreadable(attachment, error)


async def resolve(
    resolver: Resolver,
    account: str,
    attachments: Sequence[Attachment],
    model: Model,
    held: AsyncExitStack,
    allowed: bool = True,
    budget: float = BUDGET,
    without: frozenset[str] = frozenset(),
) -> Resolution:
    """One result for each attachment. Uploads are given up when `held` is closed, and use no token of
    `without` (ids). `allowed`: the key may use files. Raises GatewayError."""
    if not attachments:
        return NOTHING
    refused = placement.refused(attachments, model)
    if not allowed:
        refused |= {each: _forbidden(each) for each in attachments if _is_file(each)}
    wanted = [each for each in attachments if each not in refused]
    clock = asyncio.timeout(budget)
    try:
        async with clock:
            found = await held.enter_async_context(resolver.resolve(account, wanted, without))
    except TimeoutError:
        if not clock.expired():
            raise
        raise Unavailable(
            f"What the request attaches could not be read within {budget:g} seconds.", cause="attachments"
        ) from None
    except InvalidRequest as error:
        raise _named(error, attachments) from error
    except StoreDown as exc:
        raise Unavailable("Files cannot be read at present.", cause=exc.cause) from exc
    became = refused | dict(zip(wanted, found.results, strict=True))
    return Known([_taken(each, became[each], model) for each in attachments], found.token, found.movable)


def _is_file(attachment: Attachment) -> bool:
    """Texts and pictures within the request are messages; everything else is a file."""
    source = attachment.source
    return not isinstance(source, PlainText | Inline) or (
        isinstance(source, Inline) and attachment.kind != "image"
    )


def _forbidden(attachment: Attachment) -> Resolved:
    """Raises PermissionDenied where no sentence can replace the file."""
    where = attachment.field
    error = PermissionDenied(f"{where}: this API key may not use files; send text or pictures", param=where)
    return unreadable(attachment, error)


def _taken(attachment: Attachment, became: Resolved, model: Model) -> Resolved:
    """Raises InvalidRequest for a picture if the model accepts none."""
    if model.media or not isinstance(became, MediaUrl):
        return became
    where = attachment.field
    error = InvalidRequest(f"{where}: {model.id} takes no pictures and no videos", param=where)
    return unreadable(attachment, error)


def _named(error: InvalidRequest, attachments: Sequence[Attachment]) -> GatewayError:
    """Clients take a picture or a document out of the conversation by the words of its error
    (dialects/errors.py)."""
    kind = next((each.kind for each in attachments if each.field == error.param), None)
    unread = _UNREADABLE.get(kind or "any")
    return error if unread is None else unread(error.message, param=error.param)
