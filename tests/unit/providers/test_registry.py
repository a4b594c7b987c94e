"""A name leads to a model, to what it asks for, and to the provider that serves it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import ROWS, Model, neutral
from kimi_gateway.catalog.names import PLAIN, NameOptions
from kimi_gateway.errors import InvalidRequest, ModelNotFound, NotFound
from kimi_gateway.pivot import token_estimate
from kimi_gateway.providers.directory import ASKED_ANEW, Directory
from kimi_gateway.providers.provider import Token, Upstream
from kimi_gateway.providers.registry import Registry, Resolved
from support.pooling import Scene

Json = dict[str, Any]
AGENT = "0123456789abcdefghij"
MESSAGES = [{"role": "user", "content": "How many tokens?"}]


@dataclass
class Bare:
    """A provider with its list of models, and nothing that it need not have."""

    name: str
    listed: list[str]
    asked: int = 0

    async def models(self, token: Token) -> list[Json]:
        self.asked += 1
        return [{"id": id} for id in self.listed]


class Able(Bare):
    async def balance(self, token: Token) -> dict[str, float]:
        return {"available_balance": 5.0}

    async def estimate(self, token: Token, model: Model, messages: list[Any]) -> int:
        return 1_000


@dataclass
class Two:
    """A registry of two providers, and who may ask them."""

    ours: Bare = field(default_factory=lambda: Able("moonshot", ["kimi-k9"]))
    other: Bare = field(default_factory=lambda: Bare("other", ["other-2", AGENT]))
    now: float = 0.0
    may: bool = True

    def __post_init__(self) -> None:
        rows = [*ROWS, replace(ROWS[0], id="other-1", provider="other")]  # type: ignore[arg-type]
        catalog = Catalog(rows, {"o-*": "other-1"})
        directories = {each.name: self._directory(each) for each in (self.ours, self.other)}
        self.registry = Registry(catalog, directories)  # type: ignore[arg-type]

    def _directory(self, provider: Bare) -> Directory:
        upstream = Upstream(provider, Scene(Token.of(provider.name)).pool)  # type: ignore[arg-type]
        return Directory(lambda: upstream, lambda: self.now)

    def resolve(self, name: str) -> Resolved:
        async def may_ask() -> bool:
            return self.may

        return asyncio.run(self.registry.resolve(name, may_ask))

    @property
    def asked(self) -> tuple[int, int]:
        return self.ours.asked, self.other.asked


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
@pytest.mark.parametrize("suffix", ["", "[1m]"])
def test_a_row_leads_to_its_provider_without_a_question(row: Model, suffix: str) -> None:
    two = Two()
    found = two.resolve(row.id + suffix)
    assert (found.model, found.known, found.window) == (row, True, row.window)
    assert found.options == PLAIN
    assert found.upstream.provider is two.ours
    assert two.asked == (0, 0)


def test_the_parts_of_a_name_are_options() -> None:
    found = Two().resolve("kimi-search-silent")
    assert (found.model.id, found.options) == ("kimi", NameOptions(search=True, silent=True))
    assert Two().resolve("kimi-k3:online").model.id == "kimi-k3"


@pytest.mark.parametrize("name", ["other-1", "o-3", "o-3[1m]"])
def test_the_row_says_which_provider(name: str) -> None:
    two = Two()
    assert two.resolve(name).upstream.provider is two.other


def test_a_live_id_belongs_to_the_provider_that_lists_it() -> None:
    two = Two()
    for name, provider in {"kimi-k9": "moonshot", "other-2": "other", "other-2[1m]": "other"}.items():
        found = two.resolve(name)
        plain = name.removesuffix("[1m]")
        assert found.model == neutral(plain, provider)  # type: ignore[arg-type]
        assert (found.upstream.provider.name, found.known, found.window) == (provider, False, None)
    assert two.asked == (1, 1)


def test_unknown_names_ask_the_providers_once_a_minute_and_only_where_they_may() -> None:
    two = Two(may=False)
    for name in ("kimi-k9", "x", "kimi-k3[1m][1m]", "[1m]", ""):
        with pytest.raises(ModelNotFound) as caught:
            two.resolve(name)
        assert repr(name) in caught.value.message
    assert two.asked == (0, 0)
    two.may = True
    for _ in range(3):
        with pytest.raises(ModelNotFound):
            two.resolve("x")
    assert two.asked == (1, 1)
    two.now += ASKED_ANEW
    with pytest.raises(ModelNotFound):
        two.resolve("x")
    assert two.asked == (2, 2)


def test_for_the_id_of_an_agent_nobody_is_asked() -> None:
    two = Two()
    with pytest.raises(InvalidRequest):
        two.resolve(AGENT)
    assert two.asked == (0, 0)
    two.resolve("other-2")
    assert two.resolve(AGENT).known is False  # it is in a list that is at hand


def test_what_a_provider_may_offer_is_asked_of_those_that_offer_it() -> None:
    two = Two()
    able, bare = two.registry.directories.values()

    async def scenario() -> None:
        assert await able.balance() == {"available_balance": 5.0}
        assert await able.estimate(ROWS[0], MESSAGES) == await able.count(ROWS[0], MESSAGES, 7) == 1_000
        with pytest.raises(NotFound):
            await bare.balance()
        assert await bare.estimate(ROWS[0], MESSAGES) == token_estimate.of_messages(MESSAGES)
        await bare.check()  # and nothing is held against its tokens
        assert await bare.upstream().tokens.troubles() == []

    asyncio.run(scenario())
