"""The documentation's pictures: small, and each in a page. `scripts/pictures` takes them."""

from __future__ import annotations

import re

from support import ROOT

MOST = 60 * 1024  # bytes


def test_each_picture_is_small_and_shown_with_words_for_those_who_do_not_see_it() -> None:
    shown = set()
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for words, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text("utf-8")):
            assert words
            shown.add((page.parent / path).resolve())
    files = set((ROOT / "docs/pictures").iterdir())
    assert shown == files
    assert files
    assert all(file.stat().st_size <= MOST for file in files)
