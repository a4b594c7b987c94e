"""Upstream tokens at home, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from kimi_gateway.observe import redact
from kimi_gateway.providers.provider import Token

NAME = "tokens.json"


class TokenFile:
    """A JSON list of tokens, mode 0600. A change by another process is noticed at the next read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def tokens(self) -> tuple[Token, ...]:
        """The tokens. Raises ValueError if the file is not a JSON list of strings."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, ()
            return ()
        if self._seen != (stat.st_mtime_ns, stat.st_ino):
            secrets = json.loads(self._path.read_text("utf-8"))
            if not isinstance(secrets, list) or not all(isinstance(secret, str) for secret in secrets):
                raise ValueError(f"{self._path} is not a list of tokens")
            redact.learn(secrets)
            self._tokens = tuple(map(Token.of, secrets))
            self._seen = (stat.st_mtime_ns, stat.st_ino)
        return self._tokens

    def write(self, secrets: Sequence[str]) -> None:
        """Replace the tokens. The file is replaced in one step, so no reader sees half of it."""
        import tempfile  # loads slowly, and the gateway only reads

        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{NAME}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(list(secrets), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            os.unlink(name)
            raise
