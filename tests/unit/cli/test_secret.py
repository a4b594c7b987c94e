"""Changes of a stack's secret by several commands at one time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from kimi_gateway.cli.entry import Failed
from kimi_gateway.cli.stack import TRIES, Stack
from kimi_gateway.cli.target import Kept
from kimi_gateway.settings import Settings

FIRST = "sk-fake-first"


@pytest.fixture
def stack(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    session = boto3.Session("testing", "testing", region_name="us-east-1")
    made = session.client("secretsmanager").create_secret(Name="changed", SecretString=json.dumps([FIRST]))
    yield Stack("kimi-gateway", "CREATE_COMPLETE", "", "", made["ARN"], Settings(), session)
    session.client("secretsmanager").delete_secret(SecretId=made["ARN"], ForceDeleteWithoutRecovery=True)


def added(kept: Kept, token: str) -> Kept:
    return {**kept, "moonshot": [*kept.get("moonshot", ()), token]}


def labels(stack: Stack) -> list[str]:
    client: Any = stack.session.client("secretsmanager")
    found = client.list_secret_version_ids(SecretId=stack.secret, IncludeDeprecated=True)["Versions"]
    return sorted(label for version in found for label in version.get("VersionStages", ()))


def test_a_change_beside_another_one_loses_neither(stack: Stack) -> None:
    seen: list[Kept] = []

    def change(kept: Kept) -> Kept:
        if not seen:  # another command is quicker
            stack.change_kept(lambda before: added(before, "sk-fake-other"))
        seen.append(kept)
        return added(kept, "sk-fake-own")

    stack.change_kept(change)
    assert stack.all_kept() == {"moonshot": (FIRST, "sk-fake-other", "sk-fake-own")}
    assert len(seen) == 2
    assert labels(stack) == ["AWSCURRENT", "AWSPREVIOUS"]


def test_a_change_that_never_comes_first_fails_and_changes_nothing(stack: Stack) -> None:
    others = iter(range(100))

    def change(kept: Kept) -> Kept:
        stack.change_kept(lambda before: added(before, f"sk-fake-{next(others)}"))
        return added(kept, "sk-fake-own")

    with pytest.raises(Failed, match="Try again"):
        stack.change_kept(change)
    kept = [FIRST, *(f"sk-fake-{number}" for number in range(TRIES))]
    assert stack.all_kept() == {"moonshot": tuple(kept)}


def test_what_stays_as_it_is_makes_no_version(stack: Stack) -> None:
    before = labels(stack)
    stack.change_kept(lambda kept: None)
    assert labels(stack) == before == ["AWSCURRENT"]


def test_a_refusal_of_the_service_is_told(stack: Stack) -> None:
    """Not taken for another command's change."""
    lost = Stack(stack.name, stack.status, "", "", "no-such-secret", stack.settings, stack.session)
    with pytest.raises(Failed, match="AWS refused the secret"):
        lost.change_kept(lambda kept: kept)
