"""Data classes that cost a fifth of the standard ones at the start of a process.

The standard decorator compiles up to eight methods for each class, which was half of the gateway's own start.
Here most methods are shared functions with the standard results. `__init__` is compiled once for each shape
(number of fields and their factories), and a class gets a copy of that code with its own names. Only rare
kinds of fields need code of their own. `frozen` is checked by mypy and not at run time.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from reprlib import recursive_repr
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

_TEMPLATES: dict[tuple[int, tuple[str, ...], bool], CodeType] = {}
_MAKE = object()  # stands for a default that a factory makes
_RARE = ("InitVar", "KW_ONLY", "ClassVar")  # annotations that do not stand for a plain field

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, eq=True, frozen=False, slots=False):
        """Make `cls` a data class, for which `fields`, `replace`, `asdict` and `astuple` work too."""
        if cls is None:
            return lambda cls: _made(cls, eq, frozen, slots)
        return _made(cls, eq, frozen, slots)


def _made(cls: type[Any], eq: bool, frozen: bool, slots: bool) -> type[Any]:
    own = vars(cls)
    if own.get("__doc__") is None:
        cls.__doc__ = cls.__name__  # the standard library would inspect the signature
    equal, hashes = "__eq__" in own, own.get("__hash__") is not None
    plain = "__init__" not in own and _only_parameters(cls)
    made: Any = dataclasses.dataclass(cls, init=not plain, repr=False, eq=False, slots=slots)
    if plain:
        made.__init__ = _init(made)
    if "__repr__" not in own:
        made.__repr__ = _repr
    if not eq:
        return made  # type: ignore[no-any-return]
    names = [field.name for field in dataclasses.fields(made) if field.compare]
    values = attrgetter(*names) if names else lambda value: ()

    def __eq__(self: Any, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(values(self))

    if not equal:
        made.__eq__ = __eq__
    if not hashes:
        made.__hash__ = __hash__ if frozen else None
    return made  # type: ignore[no-any-return]


def _only_parameters(cls: type[Any]) -> bool:
    """Whether each field is a parameter that can be given by position."""
    inherited = getattr(cls, "__dataclass_fields__", {}).values()
    fields = [value for value in (*vars(cls).values(), *inherited) if isinstance(value, dataclasses.Field)]
    annotations = vars(cls).get("__annotations__", {})
    return all(field.init and field.kw_only is not True for field in fields) and not any(
        name == "self" or not isinstance(kind, str) or any(rare in kind for rare in _RARE)
        for name, kind in annotations.items()
    )


def _init(made: type[Any]) -> FunctionType:
    """`__init__` with the names of `made`. Raises TypeError as the standard decorator does."""
    missing, fields = dataclasses.MISSING, dataclasses.fields(made)
    factories = {
        f"make{i}": f.default_factory for i, f in enumerate(fields) if f.default_factory is not missing
    }
    defaults = [f.default if f.default_factory is missing else _MAKE for f in fields]
    given = [default for default in defaults if default is not missing]
    for field, default in list(zip(fields, defaults, strict=True))[len(fields) - len(given) :]:
        if default is missing:
            raise TypeError(f"non-default argument {field.name!r} follows default argument")
    shape = (len(fields), tuple(factories), hasattr(made, "__post_init__"))
    if shape not in _TEMPLATES:
        _TEMPLATES[shape] = _template(*shape)
    template = _TEMPLATES[shape]
    names = {f"f{index}": field.name for index, field in enumerate(fields)}
    qualname = f"{made.__qualname__}.__init__"
    code = template.replace(
        co_varnames=("self", *names.values()),
        co_names=tuple(names.get(name, name) for name in template.co_names),
        co_qualname=qualname,
    )
    init = FunctionType(code, {**factories, "MAKE": _MAKE}, "__init__", tuple(given) or None)
    init.__qualname__, init.__module__ = qualname, made.__module__
    return init


def _template(count: int, made: tuple[str, ...], after: bool) -> CodeType:
    """The code for `count` fields. `made` names the factories: `make2` makes the third field's default."""
    lines = []
    for index in range(count):
        value = f"make{index}() if f{index} is MAKE else f{index}" if f"make{index}" in made else f"f{index}"
        lines.append(f" self.f{index} = {value}")
    lines += [" self.__post_init__()"] if after else []
    head = f"def __init__({', '.join(['self', *(f'f{index}' for index in range(count))])}):"
    scope: dict[str, FunctionType] = {}
    exec("\n".join([head, *(lines or [" pass"])]), scope)  # noqa: S102 - no foreign text
    return scope["__init__"].__code__


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"
