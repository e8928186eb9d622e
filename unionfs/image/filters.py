"""Filters of `ls` and `prune`, in docker's words (daemon/images, `--filter KEY=VALUE`).

What filters of one key say are alternatives; labels must all be there, or all be absent. `reference` chooses among the
names of an image, too: those that do not fit are not told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from unionfs.errors import ImageError, OptionError
from unionfs.image.catalog import repository
from unionfs.image.moments import moment
from unionfs.image.patterns import compiled
from unionfs.image.results import ImageSummary

#: An image as far as it fits: with the names that do. None where it does not.
Filter = Callable[[ImageSummary], ImageSummary | None]
Find = Callable[[str], ImageSummary]
_Test = Callable[[ImageSummary], bool]

LISTING: Final = ("dangling", "label", "before", "since", "until", "reference")
PRUNING: Final = ("label", "label!", "until")
_HINTS: Final = {
    "dangling": "dangling=",
    "label": "label=KEY[=VALUE]",
    "label!": "label!=KEY[=VALUE]",
    "before": "before=",
    "since": "since=",
    "until": "until=",
    "reference": "reference=",
}
#: Each of several says something more, and is no alternative.
_ALL: Final = ("label", "label!")


def filter_of(words: Iterable[str], find: Find, keys: Sequence[str] = LISTING) -> Filter:
    """What these mean, of the kinds `keys`. OptionError for others, or what has no meaning; ImageNotFound where
    `before` or `since` name no image."""
    tests: dict[str, list[_Test]] = {}
    patterns: list[str] = []
    hints = [_HINTS[key] for key in keys]
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in keys:
            raise OptionError(f"invalid filter {word!r}", hint=f"{', '.join(hints[:-1])} or {hints[-1]}")
        if key == "reference":
            patterns.append(value)
            continue
        tests.setdefault(key, []).append(_test(key, value, find))
    if len(tests.get("until", ())) > 1:
        raise OptionError("more than one until filter specified", hint="give one")
    narrowed = named(patterns)

    def fits(one: ImageSummary) -> ImageSummary | None:
        if all((all if key in _ALL else any)(test(one) for test in some) for key, some in tests.items()):
            return narrowed(one)
        return None

    return fits


def named(patterns: Sequence[str]) -> Filter:
    """Images with a name that fits one of these patterns, and no other names; without any, all as they are.

    As `reference.FamiliarMatch`: "*" stops at a slash; the tag may be left out of the pattern. OptionError for what is
    no pattern."""
    matches = [_match(pattern) for pattern in patterns]

    def fits(one: ImageSummary) -> ImageSummary | None:
        if not matches:
            return one
        names = tuple(name for name in one.names if any(match(name) or match(repository(name)) for match in matches))
        return replace(one, names=names) if names else None

    return fits


def _match(pattern: str) -> Callable[[str], object]:
    try:
        return compiled(pattern).fullmatch
    except ValueError as error:
        raise OptionError(f"{error} {pattern!r}", hint="*, ?, [a-z], and a backslash before one of them") from None


def _test(key: str, value: str, find: Find) -> _Test:
    if key == "dangling":
        if value.lower() not in ("true", "false", "1", "0"):
            raise OptionError(f"invalid filter 'dangling={value}'", hint="dangling=true or dangling=false")
        wanted = value.lower() in ("true", "1")
        return lambda one: (not one.names) == wanted
    if key in _ALL:
        return _label(value, wanted=key == "label")
    if key == "until":
        return _until(value)
    edge = find(value)
    if edge.created is None:
        raise ImageError(f"{value} does not say when it was created")
    when = edge.created
    if key == "before":
        return lambda one: one.created is not None and one.created < when
    return lambda one: one.created is not None and one.created > when


def _label(value: str, wanted: bool) -> _Test:
    name, equals, text = value.partition("=")
    return lambda one: (name in one.labels and (not equals or one.labels[name] == text)) == wanted


def _until(value: str) -> _Test:
    """Of what does not say when it was made nobody knows."""
    try:
        end = moment(value, time.time()) / 1e9
    except ValueError:
        raise OptionError(f"invalid filter 'until={value}'", hint="as until=24h, or until=2026-11-26") from None
    return lambda one: one.created is not None and one.created.timestamp() <= end
