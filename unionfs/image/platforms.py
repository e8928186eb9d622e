"""Platforms of images: `os/arch[/variant]`, read as people write it, and chosen from as containerd does (its package
platforms): names of processors as uname(2) has them are known, arm64 is arm64/v8, an arm runs what older ones run.
"""

from __future__ import annotations

import platform as _machine
import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from unionfs.errors import ImageError
from unionfs.image.models import Platform

_ARCHITECTURES: Final = {
    "i386": "386", "i486": "386", "i586": "386", "i686": "386",
    "x86_64": "amd64", "x86-64": "amd64",
    "aarch64": "arm64", "armhf": "arm", "armel": "arm", "armv5l": "arm", "armv6l": "arm", "armv7l": "arm",
    "armv8l": "arm64", "loongarch64": "loong64",
}  # fmt: skip
#: Go's, as far as images are made for them (`go tool dist list`, containerd isKnownOS and isKnownArch).
_KNOWN_ARCHITECTURES: Final = frozenset(
    "386 amd64 arm arm64 loong64 mips mipsle mips64 mips64le ppc64 ppc64le riscv64 s390x wasm".split()
)
_KNOWN_SYSTEMS: Final = frozenset(
    "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows".split()
)
_VARIANTS: Final = {"armel": "v6", "armv5l": "v5", "armv6l": "v6"}
#: What a platform without a variant means.
_DEFAULTS: Final = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_is_word = re.compile(r"[A-Za-z0-9_.-]+").fullmatch


class Wanted(NamedTuple):
    """A platform asked for, in the words of Go; `variant` as meant where none is said."""

    os: str
    architecture: str
    variant: str

    def __str__(self) -> str:
        shown = "" if self.variant == _DEFAULTS.get(self.architecture, "") else self.variant
        return "/".join(part for part in (self.os, self.architecture, shown) if part)


def parse(text: str) -> Wanted:
    """`os/arch[/variant]`, or one of both, where the other is linux, or this machine's. ImageError for anything
    else."""
    parts = text.split("/")
    if len(parts) == 1:
        return _of_one_word(text)
    if len(parts) > 3 or not all(_is_word(part) for part in parts):
        raise ImageError(f"{text!r} is no platform", hint="write os/arch or os/arch/variant, as linux/arm64")
    return _normal(*parts)


def _of_one_word(text: str) -> Wanted:
    if text.lower() in _KNOWN_SYSTEMS:
        return _normal(text, host().architecture)
    found = _normal("linux", text)
    if found.architecture not in _KNOWN_ARCHITECTURES:
        raise ImageError(
            f"{text!r} is no platform: unknown operating system or architecture", hint="write os/arch, as linux/arm64"
        )
    return found


def host() -> Wanted:
    """This machine's, whose containers run Linux."""
    return _normal("linux", _machine.machine())


def _normal(os: str, architecture: str, variant: str = "") -> Wanted:
    os, word, variant = os.lower(), architecture.lower(), variant.lower()
    architecture = _ARCHITECTURES.get(word, word)
    variant = variant or _VARIANTS.get(word, "")
    if variant.isdigit():
        variant = f"v{variant}"
    return Wanted(os or "linux", architecture, variant or _DEFAULTS.get(architecture, ""))


def rank(wanted: Wanted, there: Platform) -> int | None:
    """How well an image for `there` suits: 0 exactly, more the worse, None not at all."""
    found = _normal(there.os, there.architecture, there.variant)
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return None
    if found.variant == wanted.variant:
        return 0
    # v7 runs v6 and v5, amd64/v3 runs v2 and v1.
    ours, theirs = (int(v[1:]) if re.fullmatch(r"v\d", v) else 0 for v in (wanted.variant, found.variant))
    return ours - theirs if 0 < theirs < ours else None


_Item = TypeVar("_Item")


def choose(wanted: Wanted, items: Sequence[tuple[Platform, _Item]]) -> _Item | None:
    """The first of those that suit best; None where none does."""
    ranked = [(rank(wanted, platform), at) for at, (platform, _) in enumerate(items)]
    suitable = [(found, at) for found, at in ranked if found is not None]
    return items[min(suitable)[1]][1] if suitable else None
