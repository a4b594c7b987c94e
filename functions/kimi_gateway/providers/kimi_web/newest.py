"""The newest refresh tokens in a file of mode 0600 beside the store."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from kimi_gateway.observe import emit
from kimi_gateway.private_file import changing, replace_file

NAME = "kimi-web.json"
MOST = 100  # tokens; older ones of tokens that were removed make room


class NewestFile:
    """Implements `sessions.Newest`. Each call reads the file, because other processes write it too; they are
    rare. `write` may wait for their lock, and several threads may call it at one time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: dict[str, str] = {}

    def read(self, id: str) -> str | None:
        return self._unwritten.get(id) or self._all().get(id)

    def write(self, id: str, refresh: str) -> None:
        """If the file cannot be written, the token lives in this process only."""
        try:
            written = self._write(id, refresh)
        except OSError as exc:
            self._unwritten[id] = refresh
            emit("session_unsaved", logging.WARNING, detail=f"{NAME}: {exc.strerror}")
        else:
            for each, text in written.items():
                if self._unwritten.get(each) == text:
                    del self._unwritten[each]

    def _write(self, id: str, refresh: str) -> dict[str, str]:
        """Replace the file in one step, with what other processes have written until now. Returns what was
        added."""
        with changing(self._path):
            fresh = {**self._unwritten, id: refresh}
            known = {name: text for name, text in self._all().items() if name not in fresh} | fresh
            known = dict(list(known.items())[-MOST:])
            replace_file(self._path, [json.dumps(known)])
        return fresh

    def _all(self) -> dict[str, str]:
        try:
            known = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(known, dict):
            return {}
        texts = {id: text for id, text in known.items() if isinstance(text, str)}
        return texts
