"""scripts/deploy asks what a production stack should not go without, once, and keeps the answers."""

from __future__ import annotations

import io
import os
import pty
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from infra.conftest import Sam
from support import ROOT

MODULE: dict[str, Any] = runpy.run_path(str(ROOT / "infra" / "deploy.py"))
CONFIG = (ROOT / "samconfig.toml").read_text("utf-8")


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    (tmp_path / "infra").mkdir()
    shutil.copy(ROOT / "infra" / "deploy.py", tmp_path / "infra")
    for name in ("samconfig.toml", "template.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return [sys.executable, str(tmp_path / "infra" / "deploy.py")]


def on_a_terminal(command: list[str], typed: str) -> subprocess.CompletedProcess[str]:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed.encode())
        return subprocess.run(command, stdin=theirs, capture_output=True, text=True)
    finally:
        os.close(ours)
        os.close(theirs)


def overrides(folder: Path, profile: str = "prod") -> list[str]:
    parsed = tomllib.loads((folder / "samconfig.toml").read_text("utf-8"))
    return list(parsed[profile]["deploy"]["parameters"]["parameter_overrides"])


def test_prod_asks_for_alarms_and_the_waf_and_names_its_price(program: list[str], tmp_path: Path) -> None:
    before = overrides(tmp_path)
    done = on_a_terminal([*program, "prod"], "nobody\nops@example.com\n5\n9\n2000\n")
    assert done.returncode == 0, done.stderr
    assert "That is not an e-mail address" in done.stderr
    assert "from 10 on" in done.stderr
    assert "$6 a month and $0.60 a million requests" in done.stderr
    assert overrides(tmp_path) == [*before, "AlarmEmail=ops@example.com", "DailyCost=5", "WafRate=2000"]
    assert done.stdout.splitlines()[0] == "kimi-gateway"
    again = subprocess.run([*program, "prod"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")


def test_nothing_typed_costs_nothing(program: list[str], tmp_path: Path, sam: Sam) -> None:
    before = overrides(tmp_path)
    assert on_a_terminal([*program, "prod"], "\n\n\n").returncode == 0
    after = overrides(tmp_path)
    assert after == [*before, 'AlarmEmail=""', "DailyCost=0", "WafRate=0"]
    parse = "import sys; from samcli.cli.types import CfnParameterOverridesType as T;"
    parse += " print(T().convert(tuple(sys.argv[1:]), None, None)['AlarmEmail'] == '')"
    assert sam("python", "-c", parse, *after).stdout.splitlines()[-1] == "True"  # SAM's own reading of it


def test_an_end_of_the_answers_deploys_nothing(program: list[str], tmp_path: Path) -> None:
    done = on_a_terminal([*program, "prod"], "\n\x04")
    assert done.returncode == 1
    assert "Nothing was deployed" in done.stderr
    assert (tmp_path / "samconfig.toml").read_text("utf-8") == CONFIG


@pytest.mark.parametrize("words", [["prod"], ["dev"], ["prod", "--parameter-overrides", "AlarmEmail=a@b"]])
def test_without_a_terminal_or_elsewhere_nothing_is_asked(
    program: list[str], tmp_path: Path, words: list[str]
) -> None:
    done = subprocess.run([*program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0
    told = "No terminal to ask for AlarmEmail, DailyCost, WafRate" in done.stderr
    assert told == (words == ["prod"])
    assert (tmp_path / "samconfig.toml").read_text("utf-8") == CONFIG


def test_the_answers_are_parameters_of_the_template(raw: Any) -> None:
    assert {each.parameter for each in MODULE["QUESTIONS"]} <= set(raw["raw"]["Parameters"])


@pytest.mark.parametrize("list", ["[]", '["A=1"]', '[\n  "A=1",\n]'])
def test_answers_join_whatever_list_is_there(list: str) -> None:
    text = f"version = 0.1\n[prod.deploy.parameters]\nparameter_overrides = {list}\n[dev.x]\ny = 1\n"
    parsed = tomllib.loads(MODULE["written"](text, "prod", {"AlarmEmail": "a@b.c"}))
    got = parsed["prod"]["deploy"]["parameters"]["parameter_overrides"]
    assert got == [
        *tomllib.loads(text)["prod"]["deploy"]["parameters"]["parameter_overrides"],
        "AlarmEmail=a@b.c",
    ]
    assert parsed["dev"] == {"x": {"y": 1}}


def test_what_is_named_already_is_not_asked() -> None:
    told = io.StringIO()
    given = ["AlarmEmail=a@b.c", "DailyCost=1", "WafRate=0"]
    assert MODULE["answers"](given, io.StringIO(""), told) == {}
    assert told.getvalue() == ""


def test_hello_is_for_a_stack() -> None:
    done = subprocess.run([sys.executable, "-m", "kimi_gateway.cli", "hello"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--stack" in done.stderr


REFUSED = [
    ("SearchRounds=1.5", "SearchRounds is not a number of rounds: '1.5'"),
    ("Aliases=kimi-k3=kimi-k2.6", "Aliases is wrong: aliases: 'kimi-k3' is a model's own name"),
    ("Aliases=gpt-5=kimi-k33", "did you mean 'kimi-k3'"),
    ("Fallbacks=kimi-k3=nothing", "Fallbacks: 'nothing' in the chain of 'kimi-k3' is not a model"),
    ("Packages=trial=0", "Packages is not a list"),
    ("OwnModels=none.json", "OwnModels does not name a file"),
    ("IdleTimeout=0", "IdleTimeout must be between"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
@pytest.mark.parametrize("by", ["file", "command"])
def test_what_the_gateway_would_refuse_is_not_deployed(
    program: list[str], tmp_path: Path, given: str, said: str, by: str
) -> None:
    file, more = tmp_path / "samconfig.toml", list[str]()
    if by == "file":
        file.write_text(CONFIG.replace('"LogLevel=debug"', f'"LogLevel=debug", "{given}"'))
    else:
        more = ["--parameter-overrides", given, "LogLevel=debug", "--no-confirm-changeset"]
    done = subprocess.run([*program, "dev", *more], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Nothing was deployed" in done.stderr
    assert said in done.stderr


def test_what_the_gateway_takes_is_deployed(program: list[str]) -> None:
    given = [
        "Aliases=claude-*=kimi-k3,gpt-5=kimi-k2.6",
        'Packages=""',
        "SearchSeconds=2.5",
        "AlarmEmail=a@b.c",
    ]
    done = subprocess.run(
        [*program, "dev", "--parameter-overrides", *given],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
