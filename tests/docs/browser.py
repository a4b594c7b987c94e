"""Chromium without the internet: what it shows of a page, and what it says on its console."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from support import ROOT


def program() -> str:
    """Chromium's path; it is installed where it is missing. Raises CalledProcessError."""
    subprocess.run([ROOT / "scripts/setup", "chromium"], check=True)
    found = shutil.which("chromium") or shutil.which("google-chrome")
    assert found is not None
    return found


def shown(url: str, profile: Path) -> tuple[str, list[str]]:
    """The page when it has come to rest, and the console's lines, which tell what could not be loaded or was
    forbidden. No host but 127.0.0.1 has an address."""
    command = [
        *(program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--no-proxy-server"),
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        *("--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", url),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
