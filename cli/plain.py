"""A quicker way from a command line to its verb, for those of which each moment counts.

typer makes a pydantic model of every option before it reads the first: a tenth of a second, in which a container could
have started. Here the same declarations are read as they stand, for the plain cases: flags, texts, numbers, lists.
Whatever is not plain (an unknown option, a missing value, `--help`, another type) is left to typer, which knows what to
say: `call` then answers None, and nothing has been done.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, cast

import typer
from typer.models import ArgumentInfo, OptionInfo

#: Verbs of containers, and whether options may stand behind the first argument.
VERBS: Mapping[str, bool] = {
    "run": False, "exec": False, "ps": True, "logs": True, "start": True, "stop": True, "kill": True, "wait": True,
    "rm": True,
}  # fmt: skip
_TYPES = (bool, str, int, float)


class Context:
    """What a verb asks of `typer.Context`."""

    def __init__(self, verb: str, store: str | None) -> None:
        self.command_path = f"unionfs {verb}"
        self._object = {} if store is None else {"store": store}

    def ensure_object(self, kind: type) -> dict[str, str]:
        return self._object


class NotPlainError(Exception):
    """For typer."""


class _Option(NamedTuple):
    """`kind`: the type of one value. `many`: it may be repeated."""

    parameter: str
    kind: type
    many: bool


def call(arguments: Sequence[str], places: Mapping[str, str]) -> Callable[[], Any] | None:
    """The call that a command line means; None where typer is to read it. `places`: verbs, as "module:name"."""
    store, rest = None, list(arguments)
    if len(rest) > 2 and rest[0] == "--store":
        store, rest = rest[1], rest[2:]
    if not rest or rest[0] not in VERBS:
        return None
    verb = rest[0]
    function = _function(places[verb])
    try:
        given = parse(function, rest[1:], interspersed=VERBS[verb])
    except NotPlainError:
        return None
    context = Context(verb, store)

    def run() -> Any:
        try:
            return function(cast(typer.Context, context), **given)
        except typer.BadParameter as error:
            error.ctx = cast(Any, context)
            raise
        except typer.Exit as error:
            return error.exit_code

    return run


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    found = getattr(import_module(f".{module}", __package__), name)
    if isinstance(found, typer.Typer):
        callback = found.registered_commands[0].callback
        assert callback is not None
        return callback
    return cast(Callable[..., Any], found)


def parse(function: Callable[..., Any], words: Sequence[str], *, interspersed: bool) -> dict[str, Any]:
    """The keyword arguments of a verb. NotPlainError where it is not as plain as that."""
    hints = typing.get_type_hints(function, include_extras=True)
    options: dict[str, _Option] = {}
    arguments: list[_Option] = []
    for name in list(inspect.signature(function).parameters)[1:]:
        kind, info = _declared(hints[name])
        described = _described(name, kind)
        if isinstance(info, ArgumentInfo):
            arguments.append(described)
            continue
        for declaration in _declarations(info):
            options[declaration] = described
    values, left = _options(options, list(words), interspersed)
    return values | _arguments(function, arguments, left)


def _declared(hint: Any) -> tuple[Any, ArgumentInfo | OptionInfo]:
    if typing.get_origin(hint) is not typing.Annotated:
        raise NotPlainError
    kind, info = typing.get_args(hint)[:2]
    if not isinstance(info, ArgumentInfo | OptionInfo) or info.callback is not None or info.envvar is not None:
        raise NotPlainError
    return kind, info


def _described(name: str, kind: Any) -> _Option:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    many = typing.get_origin(kind) is list
    one = typing.get_args(kind)[0] if many else kind
    if one not in _TYPES:
        raise NotPlainError
    return _Option(name, one, many)


def _declarations(info: OptionInfo) -> list[str]:
    """In `Annotated` the first declaration stands where a default could."""
    found = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    if not found or any("/" in one or not one.startswith("-") for one in found):
        raise NotPlainError
    return found


def _options(options: Mapping[str, _Option], words: list[str], interspersed: bool) -> tuple[dict[str, Any], list[str]]:
    """What the options say, and the words that are none."""
    values: dict[str, Any] = {}
    left: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return values, left + words
        if not word.startswith("-") or word == "-":
            left.append(word)
            if not interspersed:
                return values, left + words
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            _take(options, name, value if equals else None, words, values)
        else:
            _take_short(options, word, words, values)
    return values, left


def _take(
    options: Mapping[str, _Option], name: str, value: str | None, words: list[str], values: dict[str, Any]
) -> None:
    option = options.get(name)
    if option is None:
        raise NotPlainError
    if option.kind is bool:
        if value is not None:
            raise NotPlainError
        values[option.parameter] = True
        return
    if value is None:
        if not words:
            raise NotPlainError
        value = words.pop(0)
    try:
        made = option.kind(value)
    except ValueError:
        raise NotPlainError from None
    if option.many:
        values.setdefault(option.parameter, []).append(made)
    else:
        values[option.parameter] = made


def _take_short(options: Mapping[str, _Option], word: str, words: list[str], values: dict[str, Any]) -> None:
    """`-it`, `-eKEY=VALUE`, `-n 5`: flags together, and at most the last with a value."""
    for at in range(1, len(word)):
        option = options.get("-" + word[at])
        if option is None:
            raise NotPlainError
        if option.kind is bool:
            values[option.parameter] = True
            continue
        _take(options, "-" + word[at], word[at + 1 :] or None, words, values)
        return


def _arguments(function: Callable[..., Any], arguments: Sequence[_Option], left: list[str]) -> dict[str, Any]:
    """One word each, and the last, if it may be several, the rest."""
    values: dict[str, Any] = {}
    parameters = inspect.signature(function).parameters
    for argument in arguments:
        if argument.kind is not str:
            raise NotPlainError
        if not left:
            if parameters[argument.parameter].default is inspect.Parameter.empty:
                raise NotPlainError
        elif argument.many:
            values[argument.parameter] = left
            left = []
        else:
            values[argument.parameter] = left.pop(0)
    if left:
        raise NotPlainError
    return values
