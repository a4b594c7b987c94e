"""Documents, docstrings, comments and messages are plain English: phrases that stopped readers stay out.

The list is short: each pattern is wrong wherever it stands. CONTRIBUTING.md has the style in words.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
MODULES = [*ROOT.glob("functions/**/*.py"), *ROOT.glob("infra/*.py")]

# Pattern → what to write instead.
PHRASES = {
    r"\b(?:is|are|was|were) told\b": "say who tells whom: 'the client gets', 'the log names'",
    r"\b(?:tells?|told) of\b": "reports, describes, says that",
    r"\b(?:bad )?news\b": "outage, state, change",
    r"\bbroke\b(?! off)": "without balance; broken; cut",
    r"\bso many\b": "this number of, at most N",
    r"\banew\b": "again",
    r"\bweighed\b": "ranked, compared",
    r"(?<![Tt]here )\bis no (?!longer\b|more\b|later\b)[a-z]+": "is not a …",
    r"\b[Ww]hoever\b": "name the person or the part",
    r"\b[Ww]hat of (?:it|them)\b": "which part",
    r"\bholds? for\b": "applies to",
    r"\b(?:token|one|it|other) (?:is|was) (?:in|out)\b(?! (?:of|the|a|an|this|that|its|front|use|order)\b)":
        "is available, is unavailable",
    r"\bputs? (?:a|the|one|its|that) token out\b": "makes the token unavailable",
    r"\b(?:it|that|which|this|one|what) lies\b": "is",
    r"\bwhat is (?:left|kept|known|there|said|held|asked|sent)\b": "use a noun: the rest, the entry",
    r"\bin words of (?:its|their) own\b": "in its own format",
    r"\bthe (?:very|one) (?:seam|hand)\b": "the interface",
}  # fmt: skip
ANY = re.compile("|".join(PHRASES))
# A docstring that begins so is a noun clause or a loose genitive: its subject and verb are missing.
BEGINNINGS = re.compile(r"(?:What|Whoever|Of|Those|Nobody|Nothing of|So that|As the|By the)\b")


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each paragraph, or of each docstring, comment and message of a module."""
    source = file.read_text("utf-8")
    if file.suffix == ".md":
        prose = re.sub(
            r"^```.*?^```$", lambda found: re.sub(r"[^\n]", "", found[0]), source, flags=re.M | re.S
        )
        yield from enumerate(prose.split("\n"), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield token.start[0], token.string


def folder_of(file: Path) -> str:
    return str(file.parent.relative_to(ROOT))


FOLDERS = sorted({folder_of(file) for file in (*PAGES, *MODULES)})


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_phrase_that_stopped_readers(folder: str) -> None:
    found = [
        f"{file.name}, line {line}: {match[0]!r}; write: {instead}"
        for file in (*PAGES, *MODULES)
        if folder_of(file) == folder
        for line, text in texts(file)
        if ANY.search(shown := " ".join(text.split()))
        for pattern, instead in PHRASES.items()
        if (match := re.search(pattern, shown))
    ]
    assert found == []


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{file.relative_to(ROOT)}: {text.splitlines()[0]}"
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, kinds) and (text := ast.get_docstring(node)) and BEGINNINGS.match(text)
    ]
    assert found == []
