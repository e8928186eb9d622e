"""Groups of commands whose modules are imported when their command is called, or its help shown.

A verb may need what takes longer to import than another takes to run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command


def group(verbs: Mapping[str, str]) -> type[TyperGroup]:
    """The `cls` of a typer application with these commands, in order: of each the function, or the application of a
    group, as "module:name" in this package."""

    class Verbs(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands(verbs)
            _take_texts(self)

        def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # click's own, vendored
            return list(verbs)

    return Verbs


class _Commands(MutableMapping[str, Any]):
    """What TyperGroup calls commands, made when asked for."""

    def __init__(self, verbs: Mapping[str, str]) -> None:
        self._verbs = dict(verbs)
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name, self._verbs[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._verbs.setdefault(name, "")
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._verbs[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._verbs)

    def __len__(self) -> int:
        return len(self._verbs)


def _command(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f".{module}", __package__), attribute)
    if not isinstance(found, typer.Typer):
        verb, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        found.command(name)(verb)
    command = get_command(found)
    if not command.short_help:
        command.short_help = in_short(command.help or "")
    _take_texts(command)
    return command


#: Characters of a line of the list of verbs, beside their names.
SHORT = 64


def in_short(help: str) -> str:
    """Its first sentence for a list of verbs, where nothing is cut off in its middle: to its first comma, if longer."""
    sentence = re.split(r"[.:;] |\.$", " ".join(help.partition("\n\n")[0].split()))[0]
    return sentence if len(sentence) <= SHORT else sentence.partition(",")[0]


class _Texts:
    """What typer makes of values that are texts already: nothing."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if param.multiple or param.nargs == -1:
            return list(value or ())
        return value


class _NotGiven:
    """The same of what nobody gave. All else is for typer to make."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None or value is param.default:
            return value
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _take_texts(command: Any) -> None:
    """typer has pydantic check each value, even one that is a text and to be one: importing that takes longer than most
    verbs. So texts, lists of them, flags, and defaults are taken as they are; all else, and all values where another
    version of typer keeps its checks elsewhere, go the usual way."""
    help_option = command.get_help_option

    def quick_help_option(ctx: Any) -> Any:  # made at its first use
        option = help_option(ctx)
        _take_text(option)
        return option

    command.get_help_option = quick_help_option
    for param in command.params:
        _take_text(param)


def _take_text(param: Any) -> None:
    annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if getattr(param, "_runtime_param", param) is not None:
        return
    if annotation in (str, bool, list[str]):
        param._runtime_param = _Texts()
    elif param.nargs == 1 and not param.multiple:
        param._runtime_param = _NotGiven()
