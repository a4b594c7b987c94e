"""The playground's modules that need no browser, by Node's own test runner."""

from __future__ import annotations

import subprocess
from pathlib import Path


def test_the_modules_of_the_playground() -> None:
    command = ["node", "--test", "--test-reporter=tap", str(Path(__file__).with_name("chat.test.mjs"))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout
    assert "\n# pass 12\n" in ran.stdout
