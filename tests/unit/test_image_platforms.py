"""Platforms: read as people write them, and chosen as containerd does."""

from __future__ import annotations

import platform

import pytest

from unionfs.errors import ImageError
from unionfs.image.models import Platform
from unionfs.image.platforms import choose, host, parse, rank


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm"),
        ("linux/arm/7", "linux/arm"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armel", "linux/arm/v6"),
        ("windows/amd64", "windows/amd64"),
        ("x86_64", "linux/amd64"),
        ("ARMEL", "linux/arm/v6"),
        ("linux", str(host())),
        ("windows", str(host()).replace("linux", "windows")),
    ],
)
def test_a_platform_as_people_write_it(text: str, shown: str) -> None:
    assert str(parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "linux/arm/v7/x", "linux amd64", "linux/../x y", "foo", "v8", "unknown"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(ImageError, match="is no platform"):
        parse(text)


def one(text: str) -> Platform:
    os, architecture, *variant = text.split("/")
    return Platform.model_validate({"os": os, "architecture": architecture, "variant": variant[0] if variant else ""})


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64", ["linux/arm64"], "linux/arm64"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/arm/v6", ["linux/arm"], None),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/amd64", ["linux/amd64/v2"], None),
        ("linux/386", ["linux/amd64"], None),
        ("linux/amd64", ["unknown/unknown"], None),
        ("linux/amd64", [], None),
    ],
)
def test_what_suits_best_is_chosen(wanted: str, there: list[str], chosen: str | None) -> None:
    assert choose(parse(wanted), [(one(text), text) for text in there]) == chosen


def test_this_machine_runs_its_own() -> None:
    assert host() == parse(platform.machine())
    assert rank(host(), one(str(host()))) == 0
