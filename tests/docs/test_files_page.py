"""The examples of docs/files.md, run as they stand but for addresses and the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.live import LiveGateway
from support.resolving import PNG, pdf
from support.web import Web
from upstream import ScriptedUpstream
from upstream.kimi import TEXT

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", PAGE, re.M | re.S))


def test_each_format_and_uploads_have_an_example() -> None:
    assert list(EXAMPLES) == ["Chat Completions", "Responses", "Messages", "Uploads"]


@pytest.fixture(scope="module")
def web() -> Any:
    with Web(report_pdf=pdf("Rainfall rose."), chart_png=PNG) as web:
        yield web


@pytest.fixture(scope="module")
def gateway(web: Web, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("files")
    with LiveGateway(folder, module_upstream.url, fetch_allowed=(web.target,)) as gateway:
        yield gateway


@pytest.mark.parametrize("format", EXAMPLES)
def test_an_example_runs_and_the_model_gets_the_document(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, format: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "report.pdf").write_bytes(pdf("Rainfall rose."))
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES[format].replace("http://127.0.0.1:8000", gateway.url)
    code = code.replace("https://example.com", web.url).replace("sk-kg-…", gateway.key())
    exec(compile(code, format, "exec"), {})  # noqa: S102  our own page
    assert capsys.readouterr().out.strip() == TEXT
    document, message = upstream.chats[-1].body["messages"]
    assert "Rainfall rose." in document["content"]
    if "input_image" in code:
        assert message["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
