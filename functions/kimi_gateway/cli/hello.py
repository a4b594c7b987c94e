"""kimi-gateway hello: prints the address of a deployed gateway and the first key of a new one."""

from __future__ import annotations

import click

from kimi_gateway.cli.access import ask
from kimi_gateway.cli.selection import deployed
from kimi_gateway.cli.serve import curl, first_key
from kimi_gateway.cli.show import json_option, out
from kimi_gateway.cli.upstream import configured


@click.command("hello")
@json_option
def hello(as_json: bool) -> None:
    """Print the address of a stack. If it has no key yet, create an unlimited one and show it once."""
    stack = deployed()
    if stack is None:
        raise click.UsageError("hello is for a deployed stack: kimi-gateway --stack NAME hello.")
    secret = ask(first_key)
    source, tokens = configured(stack)
    lines = [f"Kimi Gateway on {stack.url}", f"The base URL for clients is {stack.url}/v1."]
    if source == "none":
        lines.append(f"The built-in demo answers. To use Kimi: kimi-gateway --stack {stack.name} tokens add")
    if secret is None:
        lines.append(f"More keys: kimi-gateway --stack {stack.name} keys create")
    else:
        lines += ["", "Your key, unlimited. It is shown only now:", "", f"  {secret}", ""]
        lines += [f"Try it in a browser at {stack.url}/ or here:", "", f"  {curl(stack.url, secret)}", ""]
    document = {"url": stack.url, "key": secret, "tokens": len(tokens)}
    out(as_json, document, "\n".join(lines))
