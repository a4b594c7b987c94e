"""Checks for the known fields of a request, as data: name → check. Unknown fields are never an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio

Check = Callable[[Any, str], None]


def fail(where: str, what: str) -> NoReturn:
    raise InvalidRequest(f"{where}: {what}", param=where)


def of_type(kind: type, noun: str) -> Check:
    """A check for one exact type; `bool` does not count as a number."""

    def check(value: Any, where: str) -> None:
        if type(value) is not kind:
            fail(where, f"must be {noun}")

    return check


boolean = of_type(bool, "true or false")
string = of_type(str, "a string")
array = of_type(list, "an array")
mapping = of_type(dict, "an object")


def number(low: float, high: float) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) not in (int, float):
            fail(where, "must be a number")
        if not low <= value <= high:
            fail(where, f"must be between {low:g} and {high:g}")

    return check


def integer(low: int, high: int | None = None) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not int:
            fail(where, "must be an integer")
        if value < low or (high is not None and value > high):
            fail(where, f"must be at least {low}" if high is None else f"must be between {low} and {high}")

    return check


def one_of(*words: str) -> Check:
    def check(value: Any, where: str) -> None:
        if value not in words or type(value) is not str:
            fail(where, f"must be one of {', '.join(words)}")

    return check


def members(checks: Mapping[str, Check]) -> Check:
    """A check for an object whose known members are checked if they are present and not null."""

    def check(value: Any, where: str) -> None:
        mapping(value, where)
        apply(drop_nulls(value, checks), checks, f"{where}.")

    return check


def json_object(raw: bytes) -> jsonio.Source:
    """A request's body, which must be a JSON object. Raises InvalidRequest."""
    if jsonio.has_too_many_values(raw):
        most = jsonio.MOST_VALUES
        raise InvalidRequest(f"The body has more than {most} values; send fewer or shorter messages.")
    try:
        _, source = jsonio.loads_source(raw)
    except ValueError as exc:
        if not raw.strip():
            raise InvalidRequest("The body is empty; send a JSON object.") from exc
        marked = raw.startswith(b"\xef\xbb\xbf")
        reason = "it begins with a byte order mark; send UTF-8 without one" if marked else exc
        raise InvalidRequest(f"The body is not valid JSON: {reason}") from exc
    if source is None:
        raise InvalidRequest("The body must be a JSON object.")
    return source


def renamed(error: InvalidRequest, names: Mapping[str, str]) -> InvalidRequest:
    """The same error with the client's name for the field: `names` maps the pivot's names or their beginnings
    to the client's."""
    param = error.param or ""
    for name in sorted(names, key=len, reverse=True):
        if param == name or param.startswith(f"{name}."):
            new = names[name] + param.removeprefix(name)
            error.message, error.param = error.message.replace(param, new, 1), new
            break
    return error


def drop_nulls(body: dict[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """A copy without known fields that are null, because clients send null for absent fields."""
    return {name: value for name, value in body.items() if value is not None or name not in checks}


def apply(body: Mapping[str, Any], checks: Mapping[str, Check], prefix: str = "") -> None:
    """Run the check of each field that has one. Raises InvalidRequest naming the first wrong field."""
    for name, value in body.items():
        check = checks.get(name)
        if check is not None:
            check(value, prefix + name)
