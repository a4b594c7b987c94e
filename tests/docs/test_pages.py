"""The docs' page is whole without the internet: our own files, a policy without other hosts, a browser."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest

from docs import browser
from kimi_gateway.edge.home import docs
from kimi_gateway.edge.home.asgi import FILES
from support import ROOT
from support.live import LiveGateway

# Of swagger-ui-dist 5.35.0 as it was published.
PUBLISHED = {
    "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "NOTICE": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path) as running:
        yield running


def test_the_files_are_those_that_were_published_with_their_licence() -> None:
    ours = {"index.html", "start.js"}
    assert {file.name for file in docs.FOLDER.iterdir()} == {*PUBLISHED, *ours}
    for name, digest in PUBLISHED.items():
        assert hashlib.sha256((docs.FOLDER / name).read_bytes()).hexdigest() == digest
    assert "Apache License" in (docs.FOLDER / "LICENSE").read_text()


def test_every_file_is_served_from_our_own_paths_under_a_policy_without_other_hosts(
    gateway: LiveGateway,
) -> None:
    assert {path.rpartition("/")[2] for path in FILES} == set(docs.FILES)
    with httpx.Client(base_url=gateway.url, trust_env=False) as client:
        for path in ("/docs", *FILES):
            answer, head = client.get(path), client.head(path)
            assert (answer.status_code, head.status_code) == (200, 200)
            assert head.headers["content-length"] == str(len(answer.content))
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe-inline", policy)
            assert answer.headers["x-content-type-options"] == "nosniff"
        page = client.get("/docs").text
        assert not re.search(r"https?://", page)
        for path in re.findall(r'(?:src|href)="([^"]+)"', page):
            assert path == "data:," or client.get(f"/{path}").status_code == 200
        assert client.get("/redoc").headers["location"] == "docs"
        assert client.get("/docs/../settings.py").status_code == 404
        assert client.get("/docs/index.html").status_code == 404


def test_the_functions_zip_does_not_carry_them() -> None:
    left_out = re.search(r"^HOME_ONLY = (\(.*?\))", (ROOT / "infra/build.py").read_text("utf-8"), re.M | re.S)
    assert left_out is not None
    file = "kimi_gateway/edge/home/swagger/swagger-ui-bundle.js"
    assert (ROOT / "functions" / file).is_file()
    assert any(fnmatch(file, pattern) for pattern in ast.literal_eval(left_out[1]))


def test_a_browser_without_the_internet_shows_the_page_whole(gateway: LiveGateway, tmp_path: Path) -> None:
    """Every other host's name is unknown to it; what it cannot load or may not do, it says on its console."""
    page, console = browser.shown(f"{gateway.url}/docs", tmp_path / "profile")
    assert console == []
    schema = httpx.get(f"{gateway.url}/openapi.json", trust_env=False).json()
    operations = sum(len(methods) for methods in schema["paths"].values())
    assert len(re.findall(r'class="opblock opblock-\w+', page)) == operations > 10
    assert "Kimi Gateway" in page
    assert "/v1/chat/completions" in page
    assert json.dumps("Failed to load") not in page
