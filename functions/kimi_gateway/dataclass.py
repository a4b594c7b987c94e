"""Data classes that cost a fifth of the standard ones at the start of a process.

The standard decorator compiles up to eight methods for each class, which was half of the gateway's own start.
Here only `__init__` is compiled, and the other methods are shared functions with the standard results.
`frozen` is checked by mypy and not at run time.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

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
    made: Any = dataclasses.dataclass(cls, repr=False, eq=False, slots=slots)
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


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"
