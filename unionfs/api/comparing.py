"""`compare`: any two trees, path by path; `changes_with_reasons`: what an upper changes, and in what.

    with compare("old", "busybox:v1") as comparison:
        for difference in comparison:
            print(difference.kind, difference.path, difference.reasons, comparison.text(difference))

Both are lazy: what differs is told as it is found. What the names of trees mean is in `api.trees`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from unionfs.api.changes import changed, holding, views
from unionfs.api.container_inside import is_elsewhere
from unionfs.api.layers import LayerSpec
from unionfs.api.trees import OnWarning, Pausing, named_below, open_tree
from unionfs.changeset.content import Digests
from unionfs.changeset.diff import diff as _diff
from unionfs.changeset.difference import EVERY, Reason, Reasons
from unionfs.compare.changes import of_changes
from unionfs.compare.globs import Scope
from unionfs.compare.summary import Tally, tally
from unionfs.compare.unified import is_text, unified
from unionfs.compare.view import FilesystemView
from unionfs.compare.walk import Difference, OnFailure, Side, State, differences, raise_failure
from unionfs.errors import MountError, OptionError
from unionfs.vfs import DT_REG

__all__ = [
    "SEMANTIC",
    "Comparison",
    "Difference",
    "Reason",
    "State",
    "Tally",
    "Text",
    "changes_with_reasons",
    "compare",
    "reasons_named",
    "tally",
]

#: What diffoci --semantic ignores that a tree has at all: times. (Order of members, format of tars and bits of a mode
#: that tell the type are no part of a tree.)
SEMANTIC: Final[Reasons] = frozenset({Reason.MTIME, Reason.DIRMTIME})
#: What is not compared unless it is asked for: any change in a directory sets its time, so docker leaves it out too.
_USUALLY_IGNORED: Final[Reasons] = frozenset({Reason.DIRMTIME})

TEXT_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Text:
    """The lines of a unified diff, each with its newline; or, in `note`, why there are none."""

    lines: tuple[bytes, ...] = ()
    note: str | None = None


@dataclass(slots=True)
class Comparison:
    """What differs, to be gone through once. `failures`: what could not be read so far, where `on_failure` was given:
    with one, that nothing differs means nothing."""

    one: Side
    other: Side
    _found: Callable[[OnFailure], Iterator[Difference]]
    _told: OnFailure | None = None
    failures: list[OSError] = field(default_factory=list)

    def __iter__(self) -> Iterator[Difference]:
        return self._found(self._failed)

    def _failed(self, error: OSError) -> None:
        if self._told is None:
            raise_failure(error)
        else:
            self.failures.append(error)
            self._told(error)

    def text(self, difference: Difference, limit: int = TEXT_LIMIT) -> Text | None:
        """The content of a regular file as a unified diff; None where no content differs. `limit`: the most bytes of a
        file that are looked at."""
        kinds = {state.type for state in (difference.before, difference.after) if state is not None}
        if DT_REG not in kinds or (difference.reasons and not {Reason.CONTENT, Reason.TYPE} & {*difference.reasons}):
            return None
        try:
            before, after = (
                self._data(side, state, difference.path, limit)
                for side, state in ((self.one, difference.before), (self.other, difference.after))
            )
        except OSError as error:
            self._failed(error)
            return None
        for found in (before, after):
            if isinstance(found, str):
                return Text(note=found)
        assert not isinstance(before, str) and not isinstance(after, str)
        if not is_text(before or b"") or not is_text(after or b""):
            return Text(note="binary")
        return Text(tuple(unified(difference.path, before, after)))

    @staticmethod
    def _data(side: Side, state: State | None, path: bytes, limit: int) -> bytes | str | None:
        """The data; None where there is no regular file, and a text where its data is not to be had."""
        if state is None or state.type != DT_REG:
            return None
        if state.attr.size > limit:
            return f"larger than {limit} bytes"
        item = side.find(path)
        if item is None:
            return "gone meanwhile"
        try:
            if Reason.CONTENT not in item.known:
                return "its data is elsewhere"
            content = side.content(item.ref)
            try:
                return "its data is not at hand" if isinstance(content, Digests) else content.read(content.size, 0)
            finally:
                content.close()
        finally:
            side.view.forget(item.ref)


def reasons_named(names: Iterable[str]) -> Reasons:
    """Reasons by their names, several in one text separated by commas. OptionError for what is none."""
    found: set[Reason] = set()
    for name in (part.strip() for text in names for part in text.split(",")):
        try:
            found.add(Reason(name))
        except ValueError as error:
            raise OptionError(f"{name!r} is nothing to ignore", hint=f"there are {', '.join(Reason)}") from error
    return frozenset(found)


@contextmanager
def compare(
    one: LayerSpec,
    other: LayerSpec,
    *,
    ignore: Iterable[str] = (),
    exact: bool = False,
    paths: Iterable[str] = (),
    exclude: Iterable[str] = (),
    parents: bool = False,
    inside: bool = False,
    store: LayerSpec | None = None,
    pausing: Pausing | None = None,
    on_warning: OnWarning | None = None,
    on_failure: OnFailure | None = None,
) -> Iterator[Comparison]:
    """What differs between two trees.

    `ignore`: reasons that do not count (`Reason`); that of the times of directories only counts where `exact`, as do
    fractions of a second of which one side has none. `paths`, `exclude`: patterns of what is compared, and what is not.
    `parents`: directories above a difference are listed too. `inside`: what is in a directory that is gone, each for
    itself. `on_failure` gets what cannot be read, which else is raised. MountError at the end where the changes of a
    mount were not held until then.
    """
    wanted = EVERY - reasons_named(ignore) - (frozenset() if exact else _USUALLY_IGNORED)
    scope = Scope(paths, exclude)
    with ExitStack() as stack:
        sides = [
            stack.enter_context(open_tree(spec, store=store, pausing=pausing, on_warning=on_warning))[0]
            for spec in (one, other)
        ]
        for side in sides:
            stack.callback(side.view.close)

        def found(failed: OnFailure) -> Iterator[Difference]:
            yield from differences(
                *sides, wanted=wanted, exact=exact, scope=scope, parents=parents, inside=inside, on_failure=failed
            )

        yield Comparison(sides[0], sides[1], found, on_failure)


@contextmanager
def changes_with_reasons(
    mountpoint: LayerSpec | None = None,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    ignore: Iterable[str] = (),
    paths: Iterable[str] = (),
    exclude: Iterable[str] = (),
    parents: bool = False,
    inside: bool = False,
    store: LayerSpec | None = None,
    pausing: Pausing | None = None,
    on_failure: OnFailure | None = None,
) -> Iterator[Comparison]:
    """What the upper of a mount, of a container, or of layers, changes, and in what: the changes of `diff`, compared as
    `compare` does. All that is not in `ignore` counts, as in `diff`."""
    wanted, scope = EVERY - reasons_named(ignore), Scope(paths, exclude)
    spec, place, container = changed(mountpoint, layers, upper, work, store)
    if container is not None and is_elsewhere(container):
        shown = os.fsdecode(mountpoint or b"")
        raise MountError(
            f"{shown} is mounted in a user namespace of its own",
            hint="unionfs diff without reasons lists what it changes",
        )
    pausing = pausing or Pausing()
    with (
        holding(place, pausing.wanted, pausing.limit, pausing.on_hold),
        views(spec) as (before, after, stored),
        ExitStack() as stack,
    ):
        changes = list(_diff(before, after, stored))
        below = os.fsdecode(mountpoint) if mountpoint is not None else os.fsdecode(upper or b"")
        sides = [Side(FilesystemView(fs), named_below(below)) for fs in (before, after)]
        for side in sides:
            stack.callback(side.view.close)

        def found(failed: OnFailure) -> Iterator[Difference]:
            yield from of_changes(
                changes, *sides, wanted=wanted, scope=scope, parents=parents, inside=inside, on_failure=failed
            )

        yield Comparison(sides[0], sides[1], found, on_failure)
