"""The command line. Commands import heavy modules only when they run."""

from __future__ import annotations

import click

from kimi_gateway import __version__
from kimi_gateway.cli import accounts, files, keys, tokens
from kimi_gateway.cli.backup import backup
from kimi_gateway.cli.doctor import doctor
from kimi_gateway.cli.entry import EXIT_CODES, SCRIPTS, Commands
from kimi_gateway.cli.hello import hello
from kimi_gateway.cli.moving import export, import_
from kimi_gateway.cli.restore import restore
from kimi_gateway.cli.serve import serve
from kimi_gateway.cli.service import service
from kimi_gateway.cli.top import top
from kimi_gateway.cli.usage import usage


@click.group(cls=Commands, epilog=EXIT_CODES + SCRIPTS)
@click.version_option(__version__, prog_name="kimi-gateway")
@click.option("--stack", metavar="NAME", help="Work on this stack in AWS, not on the gateway at home.")
def main(stack: str | None) -> None:
    """Kimi Gateway: an LLM endpoint of your own for the Kimi models."""


COMMANDS = (
    *(serve, hello, keys.group, accounts.group, usage, tokens.group, files.group),
    *(doctor, top, backup, restore, export, import_, service),
)
for command in COMMANDS:
    main.add_command(command)
    for each in (command, *getattr(command, "commands", {}).values()):
        each.epilog = EXIT_CODES
