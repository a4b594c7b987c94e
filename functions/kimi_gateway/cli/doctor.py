"""kimi-gateway doctor: finds faults of the configuration and says how to fix them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from kimi_gateway.cli.checks import Check, at_home
from kimi_gateway.cli.entry import FAILED
from kimi_gateway.cli.selection import deployed
from kimi_gateway.cli.show import json_option, out
from kimi_gateway.observe import redact


@click.command("doctor")
@json_option
def doctor(as_json: bool) -> None:
    """Check settings, files, the store and the upstream tokens.

    The command changes nothing. Its exit code is 1 if a check fails.
    """
    checks = [dataclasses.replace(check, detail=redact(check.detail)) for check in _checks()]
    healthy = all(check.status != "FAIL" for check in checks)
    document = {"ok": healthy, "checks": [dataclasses.asdict(check) for check in checks]}
    out(as_json, document, "\n".join(map(_line, checks)))
    if not healthy:
        raise click.exceptions.Exit(FAILED)


def _checks() -> Iterator[Check]:
    stack = deployed()
    if stack is None:
        return at_home()
    from kimi_gateway.cli.stack_checks import of_stack

    return of_stack(stack)


def _line(check: Check) -> str:
    line = f"{check.status:<4}  {check.name:<11}  {check.detail}"
    return f"{line}\n{'':<19}fix: {check.fix}" if check.fix else line
