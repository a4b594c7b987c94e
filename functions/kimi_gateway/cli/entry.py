"""The outer border of the command line: every failure becomes a text without secrets on stderr and an exit
code."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kimi_gateway.accounts.rules import TooMuch
from kimi_gateway.accounts.store import StoreDown, Unlimited
from kimi_gateway.observe import Redactor, redact
from kimi_gateway.settings import SettingsFault
from kimi_gateway.storage.sqlite.opening import FolderFault, InUse

FAILED, WRONG_USAGE, NOT_FOUND = 1, 2, 3
EXIT_CODES = """\b
Exit codes:
  0  done; healthy
  1  failed or unhealthy: the doctor found a problem, a token is not live, the store is down
  2  wrong usage or wrong settings (each is named)
  3  no such account, key, token or stack
"""
SCRIPTS = """
\b
Each command but serve and service takes --json: one JSON document on stdout, and errors as
{"error": {"message", "code"}} on stderr. Settings come from the environment; KIMI_GATEWAY_DATA
is the data folder. With --stack they come from the stack; AWS credentials and region come from the
usual places of the AWS tools.
"""
SECRET_LENGTH = 16  # a misplaced word of this length may be a token; ids, commands and options are shorter


def program(environ: Mapping[str, str] | None = None) -> str:
    """A command that starts this program from any folder of another terminal: its absolute path, with
    KIMI_GATEWAY_DATA if the environment sets it."""
    environ = os.environ if environ is None else environ
    script = Path(sys.argv[0]) if Path(sys.argv[0]).name == "kimi-gateway" else None
    beside = Path(sys.executable).parent / "kimi-gateway"
    if script is not None and script.exists():
        words = [str(script.absolute())]
    elif beside.exists():
        words = [str(beside)]
    else:
        words = [sys.executable, "-m", "kimi_gateway.cli"]
    folder = environ.get("KIMI_GATEWAY_DATA", "").strip()
    setting = f"KIMI_GATEWAY_DATA={shlex.quote(str(Path(folder).expanduser().absolute()))} " if folder else ""
    return setting + shlex.join(words)


class Failed(Exception):
    """A failure with a text for the operator. `code` is for scripts."""

    def __init__(self, message: str, code: str = "failed", exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.exit_code = exit_code


class Commands(click.Group):
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command. Always raises SystemExit."""
        words = list(sys.argv[1:] if args is None else args)
        name = prog_name or "kimi-gateway"
        try:
            code = super().main(words, name, complete_var, standalone_mode=False, **extra)
        except BrokenPipeError:  # nobody reads the pipe any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = FAILED
        except (
            Failed,
            click.ClickException,
            click.Abort,
            SettingsFault,
            StoreDown,
            FolderFault,
            InUse,
            TooMuch,
            Unlimited,
            OSError,
        ) as exc:
            code = _told(exc, words)
        sys.exit(code)


def _told(error: Exception, words: list[str]) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    failure = _failure(error, words)
    message = redact(failure.message)
    if "--json" in words:
        document = {"error": {"message": message, "code": failure.code}}
        click.echo(json.dumps(document), err=True)
    else:
        if isinstance(error, click.UsageError) and error.ctx:
            click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Error: {message}", err=True)
    return failure.exit_code


def _failure(error: Exception, words: list[str]) -> Failed:
    match error:
        case Failed():
            return error
        case click.ClickException():
            text = error.format_message()
            for kind, plain in (("integer range", "whole number"), ("float range", "number")):
                text = text.replace(f"is not a valid {kind}.", f"is not a {plain}.")  # click's words
            return Failed(_without_arguments(text, words), "usage", WRONG_USAGE)
        case click.Abort():
            return Failed("Interrupted.", "interrupted")
        case SettingsFault():
            return Failed("The settings are wrong.\n" + "\n".join(error.faults), "settings", WRONG_USAGE)
        case StoreDown():
            return Failed(f"The store cannot be used: {error}. {_doctor(words)} says more.", "store_down")
        case Unlimited():
            return Failed("The account is unlimited, so it has no balance to change.", "unlimited")
        case TooMuch():
            text = f"Only {error.spendable} credits can be taken away; nothing was taken."
            return Failed(text, "too_few_credits")
        case FolderFault():
            return Failed(str(error), "data_folder")
        case InUse():
            return Failed("The database is being restored. Try again when that is done.", "in_use")
        case OSError():
            return Failed(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        case _:
            raise error


def _doctor(words: list[str]) -> str:
    """The command that finds out what is wrong with the same gateway."""
    at = words.index("--stack") if "--stack" in words else len(words)
    return " ".join([program(), *map(shlex.quote, words[at : at + 2]), "doctor"])


def _without_arguments(message: str, words: list[str]) -> str:
    """Redact long arguments: click quotes what it cannot parse, and a misplaced argument may be a token."""
    hide = Redactor()
    parts = (part for word in words for part in (word, word.partition("=")[2]))
    hide.learn(part for part in parts if len(part) >= SECRET_LENGTH)
    return hide(message)
