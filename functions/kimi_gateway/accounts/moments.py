"""Moments in text: dates and times in ISO 8601, in UTC unless they name a zone."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def unix_seconds(text: str) -> int:
    """Raises ValueError, or OverflowError for a moment that has no unix second."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
