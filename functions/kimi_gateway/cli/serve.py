"""kimi-gateway serve: runs the gateway at home."""

from __future__ import annotations

import errno
import gc
import json
import os
import shlex
import socket
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import click

from kimi_gateway.accounts.keys import digest, new_key
from kimi_gateway.accounts.values import NewKey
from kimi_gateway.cli.access import ask
from kimi_gateway.cli.entry import FAILED, WRONG_USAGE, Failed, program
from kimi_gateway.cli.selection import at_home, target
from kimi_gateway.cli.serving import noted
from kimi_gateway.cli.upstream import Source, configured
from kimi_gateway.providers.tokens.file import NAME
from kimi_gateway.settings import Settings
from kimi_gateway.storage.sqlite import opening

if TYPE_CHECKING:
    from kimi_gateway.cli.target import TargetStore
    from kimi_gateway.providers.provider import Token

HOME = "home"
# Names under which others keep a token of the platform: its own programs, and a slip of the fingers.
MISTAKEN = ("KIMI_API_KEY", "KIMI_API_KEYS", "MOONSHOT_API_KEYS", "MOONSHOT_API_TOKEN", "MOONSHOT_KEY")
LOOPBACK = ("localhost", "::1")
EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
BODY = {"model": "kimi-k3", "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 chooses a free port."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Number of worker processes.",
)
@click.option(
    "--trusted-proxies",
    metavar="ADDRESSES",
    help="Addresses and networks, separated by commas, whose X-Forwarded-For is trusted; none by default.",
)
@click.option(
    "--passthrough/--no-passthrough",
    default=None,
    help="Whether callers may send Kimi tokens of their own instead of a key.",
)
def serve(host: str, port: int, workers: int, trusted_proxies: str | None, passthrough: bool | None) -> None:
    """Run the gateway. The first start creates an unlimited key and prints it once."""
    if passthrough is not None:
        os.environ["KIMI_GATEWAY_PASSTHROUGH"] = "on" if passthrough else "off"  # for the workers too
    if trusted_proxies is not None:
        os.environ["KIMI_GATEWAY_TRUSTED_PROXIES"] = trusted_proxies  # for the workers too
    values = at_home("serve runs the gateway at home")
    _check_models(values)
    source, tokens = configured(target())
    port, metrics = _free_port(host, port), _metrics(values)
    opening.prepare_data(values.data)
    opening.refuse_written_by_others(values.data, *opening.store_files(), NAME)
    with opening.using(values.data):
        _greet(values, host, port, source, tokens)
        ids = tuple(token.id for token in tokens)
        with noted(values.data, url(host, port), source, ids, metrics), ExitStack() as shared:
            if workers > 1 and values.telemetry:
                from kimi_gateway.observe.shared import kept

                shared.enter_context(kept(values.data))
            _run(values, host, port, workers)


def _metrics(values: Settings) -> str:
    """The address of /metrics, free and the same for all workers; empty if there is none."""
    if values.metrics is None:
        return ""
    host, wanted = values.metrics
    port = _free_port(host, wanted, "KIMI_GATEWAY_METRICS")
    os.environ["KIMI_GATEWAY_METRICS"] = f"{host}:{port}"
    return f"{url(host, port)}/metrics"


def _greet(values: Settings, host: str, port: int, source: Source, tokens: tuple[Token, ...]) -> None:
    address = url(host, port)
    kept = _goes_to_journal()
    secret = None if kept else ask(first_key)
    lines = [f"Kimi Gateway on {address}", *_seen_by_others(host, port)]
    lines.append(f"Upstream: {_upstream(values, source, tokens)}")
    if values.kimi_web:
        from kimi_gateway.catalog.catalog import WEB_WARNING

        lines.append(f"Warning: {WEB_WARNING}")
    if values.passthrough:
        lines.append("Pass-through: callers may send Kimi tokens of their own instead of a key")
    if secret is None:
        why = "The journal keeps what it reads, so no key is made here. Keys" if kept else "More keys"
        lines.append(f"{why}: {program()} keys create")
    else:
        lines += ["", "Your key, unlimited. It is shown only now:", "", f"  {secret}", ""]
        lines += [f"Try it in a browser at {address}/ or here:", "", f"  {curl(address, secret)}", ""]
    click.echo("\n".join(lines))
    sys.stdout.flush()


def _goes_to_journal() -> bool:
    """Whether systemd keeps what is printed (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        output = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # no file behind it
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{output.st_dev}:{output.st_ino}"


def _run(values: Settings, host: str, port: int, workers: int) -> None:
    if workers == 1:  # else this process watches over the workers, and nothing would turn it on again
        gc.disable()  # until the server has started: its modules are no garbage
    from kimi_gateway.edge.home import server

    code: object = None
    try:
        server.run(values, host, port, workers)
    except SystemExit as exc:  # uvicorn's codes are not ours
        code = exc.code
    except KeyboardInterrupt:
        pass
    finally:
        gc.enable()
    if code:
        raise click.exceptions.Exit(FAILED)
    with suppress(OSError):  # the terminal may be gone
        click.echo("stopped")


def _seen_by_others(host: str, port: int) -> list[str]:
    """The addresses for other machines and a warning about plain HTTP; empty on loopback."""
    if host in LOOPBACK or host.startswith("127."):
        return []
    lines = []
    if host in EVERYWHERE:
        others = [
            url(address, port) for address in addresses(socket.AF_INET6 if host == "::" else socket.AF_INET)
        ]
        lines.append(f"From other machines: {', '.join(others) or 'no address of this machine was found'}")
    return [*lines, "Without TLS, keys and answers travel in clear. Use a network that you trust, or"
            " put a TLS proxy in front."]  # fmt: skip


def addresses(family: socket.AddressFamily) -> list[str]:
    """This machine's addresses without loopback, the one of the default route first. Sends nothing."""
    found = []
    probe = (
        ("2001:db8::1", 9) if family == socket.AF_INET6 else ("192.0.2.1", 9)
    )  # addresses reserved for documentation
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect(probe)
        found.append(str(asked.getsockname()[0]))
    with suppress(OSError):
        known = socket.getaddrinfo(socket.gethostname(), None, family, socket.SOCK_STREAM)
        found += [str(address[4][0]) for address in known]
    return [each for each in dict.fromkeys(found) if not each.startswith(("127.", "::1", "fe80"))]


def _check_models(values: Settings) -> None:
    from kimi_gateway.catalog import catalog

    try:
        catalog.of_settings(values)
    except catalog.CatalogFault as exc:
        where = "" if str(exc).startswith("KIMI_") else "KIMI_GATEWAY_MODELS is wrong: "
        raise Failed(f"{where}{exc}", "settings", WRONG_USAGE) from None


def _upstream(values: Settings, source: Source, tokens: tuple[Token, ...]) -> str:
    if not tokens:
        others = [name for name in MISTAKEN if os.environ.get(name)]
        hint = f" {others[0]} has no effect; the name is MOONSHOT_API_KEY." if others else ""
        return f"the built-in demo, which invents its answers. To use Kimi: {program()} tokens add{hint}"
    count = "1 token" if len(tokens) == 1 else f"{len(tokens)} tokens"
    return f"Moonshot at {values.base_url} ({count} from the {source})"


def _free_port(host: str, port: int, option: str = "--port") -> int:
    """`port`, or a free one for 0. Raises Failed if it cannot be bound."""
    name = host.encode("ascii") if host.isascii() else host  # a text would load the tables of IDNA
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
            return int(tried.getsockname()[1])
    except OSError as exc:
        if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
            option = option.replace("--port", "--host")
            text = f"{host} is not an address of this machine: {exc.strerror}. Correct {option}."
            raise Failed(text, "wrong_host") from None
        text = (
            f"Port {port} of {host or 'all addresses'} cannot be used: {exc.strerror}. Try another {option}."
        )
        raise Failed(text, "port_in_use") from None


async def first_key(store: TargetStore, now: int) -> str | None:
    """Create the first key; None if one exists. The account may be left over from an interrupted start."""
    accounts = await store.accounts(now)
    if any(account.keys for account in accounts):
        return None
    begun = (account for account in accounts if account.name == HOME and account.unlimited)
    account = next(begun, None) or await store.create_account(HOME, None, now)
    secret = new_key()
    await store.create_key(NewKey(digest(secret), account.id, HOME, see_balance=True), now)
    return secret


def url(host: str, port: int) -> str:
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def curl(address: str, secret: str) -> str:
    return (
        f'curl -N {shlex.quote(address + "/v1/chat/completions")} -H "Authorization: Bearer {secret}"'
        f' -H "Content-Type: application/json" -d {shlex.quote(json.dumps(BODY))}'
    )
