"""Tokens of other vendors on the command line, and what the doctor says about their rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.providers.provider import Token
from support.vendors import rows
from upstream import ScriptedUpstream
from upstream import vendors as emulated
from upstream.vendors import token_of


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        emulated.serve(upstream)
        yield upstream


@pytest.fixture
def models(up: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"vendors": rows(up)}))
    monkeypatch.setenv("KIMI_GATEWAY_MODELS", str(file))


@pytest.mark.usefixtures("models")
def test_tokens_of_vendors_are_kept_apart(cli: Any, ask: Any, data: Path) -> None:
    good, other = token_of("qwen", "intl"), token_of("qwen", "us")
    added = ask("tokens", "add", f"{good},us={other}", "--vendor", "qwen")
    assert [each["id"] for each in added["tokens"]] == [Token.of(good).id, Token.of(other).id]
    ask("tokens", "add", "bad-token-of-glm", "--vendor", "glm")
    ask("tokens", "add", token_of("spark", "v1"), "--vendor", "spark")
    stored = json.loads((data / "tokens.json").read_text())
    assert stored["qwen"] == [good, f"us={other}"]
    assert (data / "tokens.json").stat().st_mode & 0o777 == 0o600
    listed = ask("tokens", "list")
    assert [(each["vendor"], each["source"]) for each in listed["vendors"]] == [
        ("qwen", "file"), ("qwen", "file"), ("glm", "file"), ("spark", "file"),
    ]  # fmt: skip
    checked = json.loads(cli("tokens", "check", "--json").stdout)["tokens"]
    assert [each["live"] for each in checked] == [True, True, False, None]
    checks = [
        each for each in json.loads(cli("doctor", "--json").stdout)["checks"] if each["name"] == "vendor"
    ]
    assert [each["status"] for each in checks] == ["ok", "ok", "FAIL", "ok", "warn"]
    assert "spark: its facts were checked" in checks[-1]["detail"]
    ask("tokens", "remove", Token.of(other).id)
    assert json.loads((data / "tokens.json").read_text())["qwen"] == [good]


def test_a_vendor_that_does_not_exist_is_refused(cli: Any) -> None:
    result = cli("tokens", "add", "tok-1234567", "--vendor", "qven")
    assert result.exit_code == 2
    assert "'qven' is not a vendor" in result.stderr


def test_a_token_for_an_address_that_the_vendor_lacks_is_refused(cli: Any, ask: Any, data: Path) -> None:
    result = cli("tokens", "add", "uss=sk-secret-1234", "--vendor", "qwen")
    assert result.exit_code == 2
    assert "the addresses of qwen are: intl, cn, us" in result.stderr
    assert "secret" not in result.stderr
    assert not (data / "tokens.json").exists()
    for token in ("us=sk-secret-1234", "c2VjcmV0==", "a:b"):
        assert ask("tokens", "add", token, "--vendor", "qwen")["tokens"][0]["added"]


@pytest.mark.usefixtures("models")
def test_a_stored_token_for_no_address_is_told_and_never_sent(
    cli: Any, ask: Any, data: Path, up: ScriptedUpstream
) -> None:
    """A file that was written by hand."""
    good = token_of("qwen", "intl")
    ask("tokens", "add", good, "--vendor", "qwen")
    (data / "tokens.json").write_text(json.dumps({"qwen": [good, "uss=sk-secret-1234"]}))
    up.requests.clear()
    checked = json.loads(cli("tokens", "check", "--json").stdout)["tokens"]
    assert [each["live"] for each in checked] == [True, False]
    assert "the addresses of qwen are: intl, cn, us" in checked[1]["detail"]
    assert all("secret" not in str(sent.headers) for sent in up.requests)
    assert cli("doctor").exit_code == 1
    ask("tokens", "remove", checked[1]["id"])
    assert json.loads((data / "tokens.json").read_text()) == {"qwen": [good]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KIMI_GATEWAY_TOKENS_QWEN", "uss=sk-secret-1234", "the addresses of qwen are: intl, cn, us"),
        ("KIMI_GATEWAY_ALIASES", "kimi-k3=kimi-k2.6", "'kimi-k3' is a model's own name"),
        ("KIMI_GATEWAY_FALLBACKS", "kimi-k3=kimi-k99", "'kimi-k99' in the chain of 'kimi-k3' is not a model"),
    ],
)
def test_the_doctor_finds_what_the_start_refuses(
    cli: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    for words, code in ((("serve", "--port", "0"), 2), (("doctor",), 1)):
        result = cli(*words)
        assert result.exit_code == code
        assert said in result.output
        assert "secret" not in result.output


def test_the_platforms_tokens_are_written_as_before(ask: Any, data: Path) -> None:
    ask("tokens", "add", "sk-one-1234567")
    assert json.loads((data / "tokens.json").read_text()) == ["sk-one-1234567"]
    ask("tokens", "add", "tok-1234567", "--vendor", "glm")
    ask("tokens", "remove", Token.of("tok-1234567").id)
    assert json.loads((data / "tokens.json").read_text()) == ["sk-one-1234567"]


def test_the_environment_wins_and_is_named(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_GATEWAY_TOKENS_GLM", "tok-environment")
    added = ask("tokens", "add", "tok-1234567", "--vendor", "glm")
    assert added["effective"] is False
