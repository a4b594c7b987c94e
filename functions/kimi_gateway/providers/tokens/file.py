"""Upstream tokens at home, in a file that only its owner can read; and the source of a gateway's tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import Unavailable
from kimi_gateway.observe import emit, redact
from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.tokens.pool import Renewal
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.net.aws import Aws

NAME = "tokens.json"


class TokenFile:
    """The stored tokens (kept.py), mode 0600. A change by another process is noticed at the next read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._kept: Mapping[str, Sequence[str]] = {}

    def tokens(self) -> tuple[Token, ...]:
        """The platform's tokens. Raises ValueError if the file is not JSON with lists of tokens."""
        self.kept()
        return self._tokens

    def kept(self) -> Mapping[str, Sequence[str]]:
        """All tokens, by vendor. Raises ValueError like `tokens`."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._tokens, self._kept = None, (), {}
            return {}
        if self._seen != (stat.st_mtime_ns, stat.st_ino):
            from kimi_gateway.providers.tokens.kept import parsed, secrets  # only if there is a file

            text = self._path.read_text("utf-8")
            try:
                kept = parsed(text, plain=False)
            except ValueError as exc:
                raise ValueError(f"{self._path} {exc}") from None
            redact.learn(secrets(kept))
            self._kept, self._tokens = kept, tuple(map(Token.of, kept.get(PLATFORM, ())))
            self._seen = (stat.st_mtime_ns, stat.st_ino)
        return self._kept

    def write(self, kept: Mapping[str, Sequence[str]]) -> None:
        """Replace the tokens. A change of stored ones locks the file from its reading on."""
        from kimi_gateway.private_file import replace_file
        from kimi_gateway.providers.tokens.kept import written

        replace_file(self._path, [written(kept)])


@dataclass(frozen=True, slots=True)
class TokenSource:
    """`tokens` returns the platform's current tokens, `kept` all stored ones by vendor. `renewal` is set if
    reading them takes a call; `known` then tells whether one succeeded. `of_vendors` is the same where only
    other vendors' tokens are read, because the platform's are in the environment."""

    tokens: Callable[[], tuple[Token, ...]]
    faults: Callable[[], list[str]]
    renewal: Renewal | None = None
    known: Callable[[], bool] = lambda: True
    kept: Callable[[], Mapping[str, Sequence[str]]] = dict
    of_vendors: Renewal | None = None

    @property
    def reading(self) -> Renewal | None:
        return self.renewal or self.of_vendors

    async def begin(self) -> None:
        """Read the tokens. Requests try again and report it if that fails."""
        if self.reading is not None:
            with suppress(Unavailable):
                await self.reading.fresh()


def token_source(settings: Settings, aws: Aws | None, clock: Callable[[], float]) -> TokenSource:
    """The environment's tokens, else the current ones of the secret or the file."""
    redact.learn((*settings.moonshot_api_key, *settings.payment_secret))
    fixed = tuple(map(Token.of, settings.moonshot_api_key))
    if settings.secret and aws is not None:
        from kimi_gateway.providers.tokens.secret import SecretTokens

        secret = SecretTokens(aws, settings.secret, clock)
        if fixed:
            return TokenSource(lambda: fixed, list, None, lambda: secret.known, secret.kept, secret)
        return TokenSource(secret.tokens, secret.faults, secret, lambda: secret.known, secret.kept)
    file = TokenFile(settings.data / NAME)
    if fixed:
        return TokenSource(lambda: fixed, list, kept=while_readable(file.kept))
    file.tokens()
    kept = while_readable(file.kept)
    return TokenSource(while_readable(file.tokens), lambda: token_faults(file.tokens), kept=kept)


T = TypeVar("T")
UNREADABLE = (OSError, ValueError)  # errors of a token source


def token_faults(tokens: Callable[[], tuple[Token, ...]]) -> list[str]:
    try:
        tokens()
    except UNREADABLE as exc:
        return [f"tokens: {exc}"]
    return []


def while_readable(tokens: Callable[[], T]) -> Callable[[], T]:
    """A reader that raises Unavailable if the file becomes unreadable while the gateway runs; that never
    leads to the demo."""

    def read() -> T:
        try:
            return tokens()
        except UNREADABLE as exc:
            emit("misconfigured", logging.ERROR, detail=f"tokens: {exc}")
            raise Unavailable(
                "The operator's Kimi tokens cannot be read; tell them.", cause="tokens"
            ) from exc

    return read
