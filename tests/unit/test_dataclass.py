"""Our data classes behave as the standard library's, but that only mypy knows that one is frozen."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dataclass import dataclass as quick

FLAVOURS: list[dict[str, bool]] = [
    {},
    {"slots": True},
    {"frozen": True},
    {"frozen": True, "slots": True},
    {"eq": False},
    {"eq": False, "slots": True},
]


def classes(decorator: Any, flavour: dict[str, bool]) -> tuple[type[Any], ...]:
    """The same four classes, made by `decorator`."""

    @decorator(**flavour)
    class Plain:
        first: int
        second: str = "two"

    @decorator(**flavour)
    class Fielded:
        """Has a docstring."""

        shown: int
        secret: str = field(default="", repr=False)
        uncompared: int = field(default=0, compare=False)
        items: list[int] = field(default_factory=list, compare=False)

        def __post_init__(self) -> None:
            self.items.append(self.shown)

    @decorator(**flavour)
    class Heir(Plain):
        third: float = 0.5

    @decorator(**flavour)
    class Own:
        value: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    return Plain, Fielded, Heir, Own


def outcome(step: Any) -> object:
    try:
        return step()
    except Exception as exc:
        return type(exc), str(exc)


def behaviour(of: tuple[type[Any], ...], first: int, text: str, again: int) -> list[object]:
    plain, fielded, heir, own = of
    values = [
        plain(first, text),
        plain(again),
        plain(first=first, second=text),
        fielded(first, text, again),
        fielded(first, text, first),
        heir(first, text, 1.5),
        heir(again, third=1.5),
        own(first),
        own(again),
    ]
    seen: list[object] = [repr(each) for each in values]
    seen += [one == other for one in values for other in values if one is not other]
    seen += [outcome(lambda each=each: hash(each) == hash(copy.copy(each))) for each in values]
    seen += [dataclasses.asdict(each) for each in values]
    seen += [dataclasses.astuple(dataclasses.replace(each)) for each in (*values[:3], *values[5:7])]
    seen += [each.__match_args__ for each in of]
    seen += [outcome(lambda: plain()), outcome(lambda: plain(1, "", 2)), outcome(lambda: plain(1, third=2))]
    return seen


@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: "-".join(flavour) or "plain")
@given(first=st.integers(0, 2), text=st.sampled_from(["", "two", "\n"]), again=st.integers(0, 2))
def test_it_behaves_as_the_standard_one(flavour: dict[str, bool], first: int, text: str, again: int) -> None:
    ours, theirs = classes(quick, flavour), classes(dataclasses.dataclass, flavour)
    assert [cls.__doc__ for cls in ours[1:2]] == [cls.__doc__ for cls in theirs[1:2]]
    assert [hasattr(cls, "__slots__") for cls in ours] == [hasattr(cls, "__slots__") for cls in theirs]
    assert behaviour(ours, first, text, again) == behaviour(theirs, first, text, again)


@quick(frozen=True, slots=True)
class Leaf:
    value: int
    leaves: tuple[object, ...] = ()


@quick
class Ring:
    inner: list[object]


def test_a_bare_decorator_works_and_a_ring_has_an_end() -> None:
    ring = Ring([])
    ring.inner.append(ring)
    assert repr(ring).endswith("Ring(inner=[...])])") or "..." in repr(ring)


def test_values_can_be_copied_and_pickled() -> None:
    leaf = Leaf(1, (Leaf(2),))
    assert pickle.loads(pickle.dumps(leaf)) == leaf == copy.deepcopy(leaf)  # noqa: S301


def test_only_init_is_compiled_for_a_class() -> None:
    """The other methods are code of this module, shared by all classes."""
    compiled = [
        name
        for name, value in vars(Leaf).items()
        if getattr(value, "__code__", None) is not None and value.__code__.co_filename == "<string>"
    ]
    assert compiled == ["__init__"]
