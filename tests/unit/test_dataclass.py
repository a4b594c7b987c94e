"""Our data classes behave as the standard library's, but that only mypy knows that one is frozen."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from dataclasses import field
from typing import Any, ClassVar

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


def test_classes_of_one_shape_share_the_code_of_init() -> None:
    """Compiling it for each class was a tenth of a start."""
    compiled = []

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "compile" and counting:
            compiled.append(arguments)

    counting = False
    sys.addaudithook(seen)
    made = []
    for number in range(4):
        counting = number > 0  # the first one may be the first of its shape
        annotations = {f"name{number}": "int", f"made{number}": "list[int]"}
        body = {"__annotations__": annotations, f"made{number}": field(default_factory=list)}
        made.append(quick(slots=True)(type(f"Made{number}", (), body)))
    counting = False
    assert [text for text, _ in compiled if b"__init__" in (text or b"")] == []
    for number, of in enumerate(made):
        value = of(number)
        assert getattr(value, f"name{number}") == number
        assert getattr(value, f"made{number}") == []
        assert getattr(value, f"made{number}") is not getattr(of(number), f"made{number}")
        with pytest.raises(TypeError, match=rf"Made{number}.__init__\(\) missing 1 .* 'name{number}'"):
            of()


def test_a_field_without_default_after_one_with_default_is_refused() -> None:
    with pytest.raises(TypeError, match="non-default argument 'second' follows default argument"):
        quick(type("Wrong", (), {"__annotations__": {"first": "int", "second": "int"}, "first": 1}))


def test_rare_fields_behave_as_the_standard_ones() -> None:
    @quick
    class Rare:
        total: dataclasses.InitVar[int]
        shared: ClassVar[int] = 3
        made: int = field(init=False, default=4)
        _: dataclasses.KW_ONLY
        named: int = 5

        def __post_init__(self, total: int) -> None:
            self.made += total

    assert (Rare(1, named=2).made, Rare(1, named=2).named, Rare.shared) == (5, 2, 3)
    with pytest.raises(TypeError):
        Rare(1, 2)  # type: ignore[call-arg, misc]
