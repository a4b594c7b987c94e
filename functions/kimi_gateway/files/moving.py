"""The signal that the uploads of a turn go to another upstream account."""

from __future__ import annotations


class Moved(Exception):
    """The token that has the turn's uploads fails, and another one could take them all."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token
