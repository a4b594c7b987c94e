"""The pages' files: their size, their libraries, their words, and what no script of ours may do."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess

import pytest

from kimi_gateway.endpoints.pages.pages import FOLDER

LIBRARIES = FOLDER / "libraries"
# The digests of the libraries as they were published.
PUBLISHED = {
    "marked.LICENSE.txt": "8e3a3f82f59a60958f56ca08f445647c32a4733dc7ca6c2c46f6eb898471ab9c",
    "marked.umd.js": "bb95d4c15f1289f78486eaacebf3bb18688475ed58a040ef762ed49337090542",
    "purify.LICENSE.txt": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "purify.min.js": "f69a46022ab1f53e969c8ebbca98172c8995785a9b3be72ea4a12d25b1a1bf67",
    "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
OURS = sorted(file for file in FOLDER.rglob("*") if file.is_file() and file.parent != LIBRARIES)
SCRIPTS = [file for file in OURS if file.suffix == ".js"]
WORDS = sorted(file.stem for file in (FOLDER / "words").iterdir())


def packed(name: str) -> int:
    return len(gzip.compress((FOLDER / name).read_bytes(), 9, mtime=0))


def sizes() -> int:
    """Bytes that ours take compressed."""
    return sum(packed(file.relative_to(FOLDER).as_posix()) for file in OURS)


def test_the_libraries_are_those_that_were_published_with_their_licences() -> None:
    assert {file.name for file in LIBRARIES.iterdir()} == {*PUBLISHED, "NOTICE.txt"}
    for name, digest in PUBLISHED.items():
        assert hashlib.sha256((LIBRARIES / name).read_bytes()).hexdigest() == digest, name
    notice = (LIBRARIES / "NOTICE.txt").read_text("utf-8")
    for name in PUBLISHED:
        if name.endswith(".LICENSE.txt"):
            assert name in notice


def test_the_pages_are_small() -> None:
    assert sizes() <= 60 * 1024
    libraries = sum(packed(f"libraries/{name}") for name in PUBLISHED if not name.endswith(".txt"))
    assert sizes() + libraries <= 160 * 1024


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_no_script_of_ours_writes_html_or_runs_text(script: object) -> None:
    text = re.sub(r"^\s*(//|\*|/\*).*$", "", str(FOLDER.joinpath(str(script)).read_text("utf-8")), flags=re.M)
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://[a-z]"
    allowed = {"chat-markdown.js"}  # it puts in what DOMPurify has cleaned
    if FOLDER.joinpath(str(script)).name not in allowed:
        assert re.findall(forbidden, text) == []


@pytest.mark.parametrize("name", WORDS)
def test_both_languages_are_complete(name: str) -> None:
    """The same names, none empty, and the same values in a text."""
    code = "import(process.argv[1]).then((read) => console.log(JSON.stringify(read.default)))"
    file = FOLDER / "words" / f"{name}.js"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code, file.as_uri()], capture_output=True, text=True, check=True
    )
    words = json.loads(done.stdout)
    assert set(words) == {"en", "zh"}
    assert set(words["en"]) == set(words["zh"])
    for key, text in words["en"].items():
        other = words["zh"][key]
        assert text
        assert other
        values = re.compile(r"\{\w+\}")
        assert sorted(values.findall(text)) == sorted(values.findall(other)), key


def test_every_word_that_a_script_uses_is_in_a_table() -> None:
    tables = "".join((FOLDER / "words" / f"{name}.js").read_text("utf-8") for name in WORDS)
    known = set(re.findall(r'^\s+"?([\w.]+)"?:', tables, re.M)) | set(re.findall(r'"([\w.]+)":', tables))
    for script in SCRIPTS:
        used = re.findall(r'\bt\("([\w.]+)"', script.read_text("utf-8"))
        assert set(used) <= known, script.name
