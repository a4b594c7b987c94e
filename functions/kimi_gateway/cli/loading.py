"""The commands by name. A command's module is imported when the command is named, because imports are most of
the gateway's start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

import click

from kimi_gateway.cli.entry import EXIT_CODES


class LoadedWhenNamed(MutableMapping[str, click.Command]):
    """`places` has for each command its module in this package and its name there."""

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        self._places = dict(places)
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        found = self._loaded.get(name)
        if found is None:
            module, attribute = self._places[name]
            command: click.Command = getattr(import_module(f"kimi_gateway.cli.{module}"), attribute)
            self[name] = found = command
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        for each in (command, *getattr(command, "commands", {}).values()):
            each.epilog = EXIT_CODES
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        self._places.pop(name, None)
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._places, *self._loaded)))

    def __len__(self) -> int:
        return len({*self._places, *self._loaded})

    def __contains__(self, name: object) -> bool:
        return name in self._places or name in self._loaded
