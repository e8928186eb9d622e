"""The commands, their options and arguments as plain values, read from the typer application: what completion offers
and the manual describes. Nothing is run, and of a command line only the modules of its verbs are imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import typer
from typer.main import get_command


@dataclass(frozen=True)
class Parameter:
    """An option, or an argument. `metavar` None: an option without a value. `usage`: as --help shows it. `spelled`: how
    an option is written, the long form last; of an argument nothing. `choices`: the words that are taken, if only some
    are. `many`: an argument that takes all there are, or an option that may be repeated. `required`: as it says."""

    usage: str
    help: str
    metavar: str | None
    spelled: tuple[str, ...]
    choices: tuple[str, ...]
    many: bool
    required: bool


class Command:
    """One verb, or a group of them."""

    def __init__(self, made: Any, name: str, parent: Command | None = None) -> None:
        self.name = name
        self._made = made
        above: typer.Context | None = None if parent is None else parent._context
        self._context: typer.Context = typer.Context(made, info_name=name, parent=above, **made.context_settings)

    @property
    def path(self) -> str:
        """`unionfs image ls`."""
        return self._context.command_path

    @property
    def names(self) -> list[str]:
        """Of the verbs in it."""
        return list(self._made.list_commands(self._context)) if self.is_group else []

    @property
    def is_group(self) -> bool:
        return hasattr(self._made, "list_commands")

    def verb(self, name: str) -> Command | None:
        return Command(self._made.commands[name], name, self) if name in self.names else None

    def verbs(self) -> Iterator[Command]:
        return (verb for name in self.names if (verb := self.verb(name)) is not None)

    @property
    def takes_options_anywhere(self) -> bool:
        """Or only before the first argument, what follows being another program's."""
        return bool(self._context.allow_interspersed_args)

    @property
    def summary(self) -> str:
        """What the list of verbs says of it."""
        return str(self._made.get_short_help_str())

    @property
    def help(self) -> str:
        return self._made.help or ""

    @property
    def usage(self) -> list[str]:
        """What may follow its path."""
        return list(self._made.collect_usage_pieces(self._context))

    @cached_property
    def options(self) -> list[Parameter]:
        return [self._parameter(one) for one in self._declared("option")]

    @cached_property
    def arguments(self) -> list[Parameter]:
        return [self._parameter(one) for one in self._declared("argument")]

    def _declared(self, kind: str) -> Iterator[Any]:
        for one in self._made.get_params(self._context):
            if one.param_type_name == kind and not getattr(one, "hidden", False):
                yield one

    def _parameter(self, one: Any) -> Parameter:
        usage, help = one.get_help_record(self._context) or ("", "")
        is_option = one.param_type_name == "option"
        takes_value = not (is_option and (one.is_flag or getattr(one, "count", False)))
        choices = one.shell_complete(self._context, "") if takes_value and one.metavar is None else ()
        spelled = (*one.opts, *one.secondary_opts) if is_option else ()
        if "--help" in spelled:  # typer has these in a set, in any order
            spelled = tuple(sorted(spelled, key=len))
            usage = ", ".join(spelled)
        return Parameter(
            usage=usage,
            help=" ".join((help or "").split()),
            metavar=one.metavar or one.name.upper() if takes_value else None,
            spelled=spelled,
            choices=tuple(str(item.value) for item in choices),
            many=one.nargs == -1 or bool(getattr(one, "multiple", False)),
            required=bool(one.required),
        )


def root() -> Command:
    """The command `unionfs`."""
    from .main import app

    return Command(get_command(app), "unionfs")
