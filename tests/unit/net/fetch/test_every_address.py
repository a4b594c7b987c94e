"""No hostile URL connects to any address, seen in a network namespace where all of them are local."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from support import ROOT

ALONE = ["unshare", "--map-root-user", "--net"]
SET_UP = (
    "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo && exec"
)


def can_unshare() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="the kernel gives users no network namespaces")
def test_hostile_urls_connect_to_no_address_at_all() -> None:
    """The control: public addresses do reach the canaries, which then redirect to a private one."""
    path = os.pathsep.join((str(ROOT / "functions"), str(ROOT / "tests")))
    program = [*ALONE, "sh", "-c", f'{SET_UP} "$0" -m support.every_address', sys.executable]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["urls"] >= 120
    assert found["hostile"] == 0
    assert found["public"] == ["8.8.8.8", "2606:4700:4700::1111"]
