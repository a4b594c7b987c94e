"""Questions and checks of scripts/deploy before it deploys a profile of samconfig.toml.

Prints the stack, its region and its AWS profile as sam will use them. On a terminal it first asks for the
parameters of `QUESTIONS` that a production profile lacks. The answers go into samconfig.toml. It names
parameters that the gateway would refuse at its start, and then nothing is deployed: no function would work.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from kimi_gateway import settings
from kimi_gateway.catalog import catalog

CONFIG = Path(__file__).resolve().parents[1] / "samconfig.toml"
TEMPLATE = CONFIG.parent / "template.yaml"
BUNDLED = CONFIG.parent / "functions"  # where OwnModels has its file
ASKED = ("prod",)
LEAST_WAF = 10  # requests in five minutes: AWS takes no lower limit for a rate rule
WAF_PRICE = "$6 a month and $0.60 a million requests"  # $5 the list, $1 its rule; docs/cost.md


@dataclass(frozen=True, slots=True)
class Question:
    """`fits` raises ValueError with an advice."""

    parameter: str
    text: str
    default: str
    fits: Callable[[str], None]


def an_address(typed: str) -> None:
    if typed and not re.fullmatch(r"[^@\s\"',]+@[^@\s\"',]+", typed):
        raise ValueError("That is not an e-mail address. Type one, or nothing for none.")


def a_number(typed: str) -> None:
    if not re.fullmatch(r"\d+(\.\d+)?", typed):
        raise ValueError("Type a number, such as 0 or 5.")


def a_rate(typed: str) -> None:
    if not typed.isdigit() or 0 < int(typed) < LEAST_WAF:
        raise ValueError(f"Type 0, or a whole number from {LEAST_WAF} on.")


QUESTIONS = (
    Question("AlarmEmail", "E-mail address that gets the alarms (nothing for none)", "", an_address),
    Question(
        "DailyCost", "USD a day of estimated upstream cost that raise an alarm (0 for none)", "0", a_number
    ),
    Question(
        "WafRate",
        "Requests in five minutes from one address above which a WAF blocks it (0 for no WAF)\n"
        f"  A WAF costs {WAF_PRICE}, also while nobody asks",
        "0",
        a_rate,
    ),
)


def named(parameters: Sequence[str]) -> set[str]:
    return {each.partition("=")[0] for each in parameters}


def answers(parameters: Sequence[str], typed: TextIO, told: TextIO) -> dict[str, str]:
    """Answers for questions that are not among `parameters`. Raises EOFError if nobody types any more."""
    found = {}
    for question in QUESTIONS:
        while question.parameter not in {*named(parameters), *found}:
            print(f"{question.text} [{question.default}]: ", end="", file=told, flush=True)
            line = typed.readline()
            if not line:
                raise EOFError
            answer = line.strip() or question.default
            try:
                question.fits(answer)
            except ValueError as exc:
                print(exc, file=told)
            else:
                found[question.parameter] = answer
    return found


def written(text: str, profile: str, found: Mapping[str, str]) -> str:
    """samconfig.toml with these values among the profile's parameter_overrides; everything else stays."""
    head = f"[{profile}.deploy.parameters]\n"
    before, mark, section = text.partition(head)
    section, bracket, behind = section.partition("\n[")
    found_at = re.search(r"^parameter_overrides\s*=\s*\[(.*?)\]", section, re.M | re.S)
    if not mark or found_at is None:
        raise ValueError(f"samconfig.toml has no parameter_overrides list under {head.strip()}")
    kept = found_at[1].rstrip().rstrip(",")
    quoted = {name: value or '""' for name, value in found.items()}  # SAM takes no NAME= without a value
    more = ", ".join(json.dumps(f"{name}={value}") for name, value in quoted.items())
    line = f"parameter_overrides = [{kept}, {more}]" if kept.strip() else f"parameter_overrides = [{more}]"
    section = section[: found_at.start()] + line + section[found_at.end() :]
    return before + mark + section + bracket + behind


def values(words: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of the command line, else the profile's. SAM's longer spelling (ParameterKey=…) is left
    out."""
    kept = parameters.get("parameter_overrides", [])
    found = shlex.split(kept) if isinstance(kept, str) else list(kept)
    if "--parameter-overrides" in words:
        rest = words[words.index("--parameter-overrides") + 1 :]
        end = next((at for at, word in enumerate(rest) if word.startswith("--")), len(rest))
        found = [part for word in rest[:end] for part in shlex.split(word)]
    parted = (word.partition("=") for word in found)
    return {name: value.strip('"') for name, equals, value in parted if equals}


def faults(given: Mapping[str, str], template: str) -> list[str]:
    """The faults for which the gateway would not start, by the names of the parameters."""
    settings_of = {parameter: name for name, parameter in re.findall(r"(KIMI_\w+): !Ref (\w+)", template)}
    environ = {settings_of[name]: value for name, value in given.items() if name in settings_of}
    if own := environ.get("KIMI_GATEWAY_MODELS"):
        environ["KIMI_GATEWAY_MODELS"] = str(BUNDLED / own)
    try:
        catalog.of_settings(settings.read(environ))
    except settings.SettingsFault as exc:
        found = exc.faults
    except catalog.CatalogFault as exc:
        found = [str(exc)]
    else:
        return []
    for parameter, name in settings_of.items():
        found = [re.sub(rf"\b{name}\b", parameter, each) for each in found]
    return found


def option(words: Sequence[str], parameters: Mapping[str, Any], name: str) -> str:
    """An option of the command line, else the profile's."""
    pairs = zip(words, [*words[1:], ""], strict=False)
    given = [
        word.partition("=")[2] or after for word, after in pairs if word.partition("=")[0] == f"--{name}"
    ]
    return str(given[-1] if given else parameters.get(name.replace("-", "_"), ""))


def main() -> None:
    profile, words = sys.argv[1], sys.argv[2:]
    text = CONFIG.read_text("utf-8")
    profiles = tomllib.loads(text)
    if profile not in profiles or profile == "version":
        sys.exit(f"samconfig.toml has no profile {profile!r}")
    parameters = profiles[profile]["deploy"]["parameters"]
    given = parameters.get("parameter_overrides", [])
    open_ones = [each.parameter for each in QUESTIONS if each.parameter not in named(given)]
    if profile in ASKED and open_ones and "--parameter-overrides" not in words:
        if sys.stdin.isatty():
            try:
                found = answers(given, sys.stdin, sys.stderr)
            except EOFError:
                sys.exit("\nNothing was deployed.")
            CONFIG.write_text(written(text, profile, found), "utf-8")
            print("The answers are in samconfig.toml, where you can change them.", file=sys.stderr)
        else:
            names = ", ".join(open_ones)
            print(f"No terminal to ask for {names}: they stay as they are (samconfig.toml).", file=sys.stderr)
    if refused := faults(values(words, parameters), TEMPLATE.read_text("utf-8")):
        sys.exit("Nothing was deployed, because the gateway would not start.\n" + "\n".join(refused))
    for name in ("stack-name", "region", "profile"):
        print(option(words, parameters, name))


if __name__ == "__main__":
    main()
