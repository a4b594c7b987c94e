"""Which target a command has: the gateway at home, or with --stack NAME a deployed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kimi_gateway import settings
from kimi_gateway.cli.home import Home
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.cli.stack import Stack
    from kimi_gateway.cli.target import Target


def _stack_named() -> str | None:
    name = click.get_current_context().find_root().params.get("stack")
    return name if isinstance(name, str) else None


def deployed() -> Stack | None:
    """The stack of --stack, looked up once; None without --stack. Raises Failed if it cannot be used."""
    name, root = _stack_named(), click.get_current_context().find_root()
    if name is None:
        return None
    from kimi_gateway.cli.stack import Stack

    if root.obj is None:
        root.obj = Stack.find(name)
    found: Stack = root.obj
    return found


def target() -> Target:
    """Raises SettingsFault at home, Failed if the stack cannot be used."""
    return deployed() or Home(settings.read())


def at_home(what: str) -> Settings:
    """Settings of the gateway at home. Raises UsageError with --stack; `what` begins its text."""
    if _stack_named() is not None:
        raise click.UsageError(f"{what}; run it without --stack.")
    return settings.read()
