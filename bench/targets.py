"""What is measured, and how each of it is started: emulator, relay, bare proxy, gateway."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from processes import NotStarted, Process, free_port

HERE = Path(__file__).parent
PLENTY = 10**9
GATEWAY = [sys.executable, "-m", "kimi_gateway.cli"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the operator's own: no tokens, no proxies, no settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(home), **more}


@dataclass(slots=True)
class Target:
    """Startable any number of times; state (the gateway's database) stays in `home`."""

    name: str
    argv: list[str]
    environ: Mapping[str, str]
    log: Path
    key: str = "none"
    port: int = field(default_factory=free_port)
    option: str = "--port"  # with which it is told its port; empty if its command has it

    def start(self, cores: Collection[int]) -> Process:
        told = [self.option, str(self.port)] if self.option else []
        return Process([*self.argv, *told], self.environ, cores, self.log)


def _python(home: Path, name: str, script: str, **more: str) -> Target:
    environ = environment(home, **more)
    return Target(name, [sys.executable, str(HERE / script)], environ, home / f"{name}.log")


def emulator(home: Path) -> Target:
    return _python(home, "direct", "upstream.py")


def peer(home: Path, upstream: str, name: str, command: str) -> Target:
    """Another gateway, from an environment of its own. `{port}` and `{upstream}` stand in its command. It
    takes requests without a key of its own."""
    port = free_port()
    argv = shlex.split(command.replace("{port}", str(port)).replace("{upstream}", upstream))
    return Target(
        name, argv, environment(home, OPENAI_API_KEY="none"), home / f"{name}.log", port=port, option=""
    )


def relay(home: Path, upstream: str) -> Target:
    return _python(home, "relay", "relay.py", BENCH_UPSTREAM=upstream)


def bare_proxy(home: Path, upstream: str) -> Target:
    return _python(home, "bare proxy", "bare_proxy.py", BENCH_UPSTREAM=upstream)


def gateway(
    home: Path,
    upstream: str,
    name: str = "gateway",
    tokens: str = "sk-bench-token",
    workers: int = 1,
    **more: str,
) -> Target:
    """With a key under limits and credits, both too many to be used up, and its log in a file."""
    data = home / name
    if "PYTHONPATH" not in more:  # another version may not know the setting
        more["KIMI_GATEWAY_KEYLESS_PER_ADDRESS"] = "100000"  # all clients have one address
    more["KIMI_GATEWAY_ACCOUNT_CONCURRENCY"] = "10000"  # and one account
    environ = environment(
        home,
        **{"MOONSHOT_API_KEY": tokens, "KIMI_BASE_URL": upstream, "KIMI_GATEWAY_DATA": str(data)},
        **more,
    )
    limits = [f"--{each}={PLENTY}" for each in ("credits", "rpm", "rph", "rpd")]
    made = subprocess.run(  # noqa: S603
        [*GATEWAY, "keys", "create", "--name", "bench", *limits, "--json"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if made.returncode:
        raise NotStarted(f"no key could be made for {name}:\n{made.stderr[-2000:]}")
    key: str = json.loads(made.stdout)["key"]
    serve = [*GATEWAY, "serve", *(("--workers", str(workers)) if workers > 1 else ())]
    return Target(name, serve, environ, home / f"{name}.log", key)
