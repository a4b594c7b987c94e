"""The command line. Commands are loaded when they are named, and import heavy modules only when they run."""

from __future__ import annotations

import click

from kimi_gateway import __version__
from kimi_gateway.cli.entry import EXIT_CODES, SCRIPTS, Commands
from kimi_gateway.cli.loading import LoadedWhenNamed

GROUPS = ("keys", "accounts", "tokens", "files")
SINGLE = ("serve", "hello", "usage", "doctor", "top", "backup", "restore", "service")
PLACES = {
    **{name: (name, "group") for name in GROUPS},
    **{name: (name, name) for name in SINGLE},
    "export": ("moving", "export"),
    "import": ("moving", "import_"),
}


@click.group(cls=Commands, commands=LoadedWhenNamed(PLACES), epilog=EXIT_CODES + SCRIPTS)
@click.version_option(__version__, prog_name="kimi-gateway")
@click.option("--stack", metavar="NAME", help="Work on this stack in AWS, not on the gateway at home.")
def main(stack: str | None) -> None:
    """Kimi Gateway: an LLM endpoint of your own for the Kimi models."""
