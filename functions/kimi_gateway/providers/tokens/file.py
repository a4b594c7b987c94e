"""Upstream tokens at home, in a file that only its owner can read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.observe import redact
from kimi_gateway.providers.provider import Token

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
        """Replace the tokens. The file is replaced in one step, so no reader sees half of it."""
        import tempfile  # loads slowly, and the gateway only reads

        from kimi_gateway.providers.tokens.kept import written

        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{NAME}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(written(kept))
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            os.unlink(name)
            raise
