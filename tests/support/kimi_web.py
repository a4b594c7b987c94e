"""A gateway with the web service of kimi.com at the tests' emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.live import LiveGateway
from upstream.kimi_web import WebService


def models_file(service: WebService, folder: Path) -> Path:
    """The operator's file: the built-in row at the emulator's address."""
    folder.mkdir(exist_ok=True)
    file = folder / "models.json"
    row = {"id": "kimi-web", "like": "kimi-web", "bases": service.address}
    file.write_text(json.dumps({"vendors": [row]}))
    return file


@contextmanager
def with_web(service: WebService, folder: Path, *tokens: str, **more: Any) -> Iterator[LiveGateway]:
    own = {"kimi-web": tokens or (service.refresh_token(),)} | more.pop("vendor_tokens", {})
    given = {"models": models_file(service, folder), "vendor_tokens": own, "kimi_web": True, **more}
    with LiveGateway(folder, service.up.url, **given) as gateway:
        yield gateway
