"""moto with secrets in their current version, and faster. moto 5.2 moves the label AWSCURRENT to another
version, but gives the one before to those who ask for no version. For each call it lists its own folder and
the methods of a class."""

from __future__ import annotations

from functools import cache
from typing import Any

from moto import backends
from moto.core import responses
from moto.secretsmanager.models import SecretsManagerBackend

_moved = SecretsManagerBackend.update_secret_version_stage


def _move(
    self: SecretsManagerBackend,
    secret_id: str,
    version_stage: str,
    remove_from_version_id: str,
    move_to_version_id: str,
) -> tuple[str, str]:
    done = _moved(self, secret_id, version_stage, remove_from_version_id, move_to_version_id)
    if version_stage == "AWSCURRENT" and move_to_version_id:
        secret: Any = self.secrets[secret_id]
        secret.default_version_id = move_to_version_id
    return done


_listed = backends.list_of_moto_modules


@cache
def _modules() -> frozenset[str]:
    return frozenset(_listed())


def mend() -> None:
    """For all of moto in this process."""
    SecretsManagerBackend.update_secret_version_stage = _move  # type: ignore[method-assign]
    backends.list_of_moto_modules = _modules
    responses.method_names_from_class = cache(responses.method_names_from_class)
