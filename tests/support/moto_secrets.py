"""Secrets of moto in their current version. moto 5.2 moves the label AWSCURRENT to another version, but gives
the one before to those who ask for no version."""

from __future__ import annotations

from typing import Any

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


def mend() -> None:
    """For all of moto in this process."""
    SecretsManagerBackend.update_secret_version_stage = _move  # type: ignore[method-assign]
