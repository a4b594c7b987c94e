"""How many examples a property is tried on: few in the suite, in `scripts/fuzz` all that it is worth."""

from __future__ import annotations

from hypothesis import settings

PART = 4  # the suite tries one of so many


def examples(deep: int) -> int:
    """`deep` of them in `scripts/fuzz`, a quarter in the suite."""
    return deep // PART if settings.get_current_profile_name() == "suite" else deep
