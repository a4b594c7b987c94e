"""kimi-gateway service: prints units with which systemd runs the gateway and backs it up."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shlex
from pathlib import Path

import click

from kimi_gateway.cli.entry import WRONG_USAGE, Failed, program
from kimi_gateway.cli.selection import at_home

NAME = "kimi-gateway"
PLAIN = re.compile(r"[A-Za-z0-9_@/.:,=+$%-]+")
AFTER_DRAIN = 15  # seconds that a stop may take beyond KIMI_GATEWAY_DRAIN
# Options of systemd.exec(5) that need no privileges of their own; they hold in the system's manager only.
CONFINED = """\
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={folder}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=
"""
GATEWAY = """\
[Unit]
Description=Kimi Gateway
{after}StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=exec
{who}Environment={data}
EnvironmentFile=-%E/kimi-gateway/environment
ExecStart={command}
Restart=on-failure
RestartSec=2
KillMode=mixed
TimeoutStopSec={stop}
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
{confined}
[Install]
WantedBy={target}
"""
BACKUP = """\
[Unit]
Description=Backup of Kimi Gateway

[Service]
Type=oneshot
{who}Environment={data}
EnvironmentFile=-%E/kimi-gateway/environment
ExecStart={command}
UMask=0077
NoNewPrivileges=yes
{confined}"""
TIMER = """\
[Unit]
Description=Daily backup of Kimi Gateway

[Timer]
OnCalendar=daily
Persistent=true
RandomizedDelaySec=15min
Unit=kimi-gateway-backup.service

[Install]
WantedBy=timers.target
"""


@click.command("service")
@click.argument("unit", type=click.Choice(["gateway", "backup", "timer"]), default="gateway")
@click.option("--system", is_flag=True, help="A unit of the system, not of the user who runs this.")
@click.option("--user", "name", help="With --system: who runs it; by default, who runs this command.")
@click.option("--host", help="As of serve.")
@click.option("--port", type=click.IntRange(0, 65535), help="As of serve.")
@click.option("--workers", type=click.IntRange(1, 256), help="As of serve.")
@click.option("--trusted-proxies", metavar="ADDRESSES", help="As of serve.")
@click.option(
    "--backups", type=click.Path(path_type=Path), help="Folder of backups; by default, beside the data."
)
@click.option(
    "--keep", type=click.IntRange(1, 10_000), default=14, show_default=True, help="Backups to keep."
)
def service(
    unit: str, system: bool, name: str | None, backups: Path | None, keep: int, **serving: str | int | None
) -> None:
    """Print a unit for systemd: of the gateway, of a backup, or of the backup's daily timer.

    Settings of the unit are read from ~/.config/kimi-gateway/environment, with --system from
    /etc/kimi-gateway/environment. docs/home.md shows every step.
    """
    values = at_home("systemd runs the gateway at home")
    if name and not system:
        raise click.UsageError(
            "--user belongs to --system: a unit of the user's own manager runs as the user."
        )
    if unit == "timer":
        click.echo(TIMER, nl=False)
        return
    data = _data(values.data, name) if system else values.data
    data, folder = data.absolute(), (backups or data.with_name(data.name + "-backups")).absolute()
    words = shlex.split(program({}))
    if unit == "gateway":
        written, words = data, [*words, "serve", *_options(serving)]
    else:
        written, words = folder, [*words, "backup", "--keep", str(keep), str(folder)]
    template = GATEWAY if unit == "gateway" else BACKUP
    confined = CONFINED.format(folder=" ".join(value(str(each)) for each in dict.fromkeys((written, data))))
    click.echo(
        template.format(
            after="Wants=network-online.target\nAfter=network-online.target\n" if system else "",
            who=f"User={_runs_as(name)}\n" if system else "",
            data=value(f"KIMI_GATEWAY_DATA={data}"),
            command=" ".join(map(word, words)),
            stop=int(values.drain) + AFTER_DRAIN,
            confined=confined if system else "",
            target="multi-user.target" if system else "default.target",
        ),
        nl=False,
    )
    for each in {data, written}:
        if not each.is_dir():
            click.echo(
                f"Note: {each} does not exist yet. docs/home.md says what to do before the start.", err=True
            )


def value(text: str) -> str:
    """A value of a unit's line, such that systemd reads `text` (systemd.syntax(7))."""
    text = text.replace("%", "%%")
    if PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def word(text: str) -> str:
    """A word of a command line, where systemd also replaces variables (systemd.service(5))."""
    return value(text.replace("$", "$$"))


def _options(serving: dict[str, str | int | None]) -> list[str]:
    pairs = (
        (f"--{name.replace('_', '-')}", str(value)) for name, value in serving.items() if value is not None
    )
    return [part for pair in pairs for part in pair]


def _runs_as(name: str | None) -> str:
    name = name or getpass.getuser()
    if name == "root":
        text = "The gateway needs no rights of root. Name the user that shall run it with --user."
        raise Failed(text, "usage", WRONG_USAGE)
    return name


def _data(folder: Path, name: str | None) -> Path:
    """The data folder of the user; KIMI_GATEWAY_DATA applies to all."""
    if name is None or os.environ.get("KIMI_GATEWAY_DATA", "").strip():
        return folder
    try:
        home = pwd.getpwnam(name).pw_dir
    except KeyError:
        raise Failed(f"This machine has no user {name}.", "usage", WRONG_USAGE) from None
    return Path(home) / ".local/share/kimi-gateway"
