"""Patterns of paths: what they match, what they let a walk leave out, what is refused."""

from __future__ import annotations

import pytest

from unionfs.compare.globs import Glob, Scope, Verdict
from unionfs.errors import OptionError

IN, ABOVE, OUT = Verdict.IN, Verdict.ABOVE, Verdict.OUT


@pytest.mark.parametrize(
    ("pattern", "path", "verdict"),
    [
        ("*.pyc", "a/b/c.pyc", IN),
        ("*.pyc", "a/b", ABOVE),
        ("b", "a/b", IN),
        ("b/", "a/b", IN),
        ("b", "b/c", ABOVE),
        ("/b", "a/b", OUT),
        ("/etc/*", "etc", ABOVE),
        ("/etc/*", "etc/motd", IN),
        ("/etc/*", "usr", OUT),
        ("etc/motd", "etc/motd", IN),
        ("etc/motd", "a/etc/motd", OUT),
        ("/usr/**/doc", "usr/doc", IN),
        ("/usr/**/doc", "usr/a/b/doc", IN),
        ("/usr/**/doc", "usr/a/b", ABOVE),
        ("/usr/**/doc", "var", OUT),
        ("**/doc", "a/doc", IN),
        ("/a/**", "a/b/c", IN),
        ("/a/**", "a", ABOVE),
        ("?", "é", IN),
        ("??", "é", ABOVE),
        ("[a-c]x", "bx", IN),
        ("[!a-c]x", "bx", ABOVE),
        ("[^a-c]x", "dx", IN),
        ("[]]", "]", IN),
        ("[", "[", IN),
        ("a[b", "a[b", IN),
        ("\\*", "*", IN),
        ("\\*", "x", ABOVE),
        ("a.c", "abc", ABOVE),
        ("*", "new\nline", IN),
        ("/*/b", "a/b", IN),
        ("/*/b", "a/c/b", OUT),
    ],
)
def test_what_a_pattern_matches(pattern: str, path: str, verdict: Verdict) -> None:
    assert Glob(pattern).match(path.split("/")) is verdict


def test_names_that_are_no_utf8_are_matched_too() -> None:
    assert Scope(only=["a?b"]).of(b"a\xffb", ABOVE) is IN
    assert Scope(only=["a\udcff*"]).of(b"a\xffb", ABOVE) is IN


@pytest.mark.parametrize("pattern", ["", "/", "//", ".", "../x", "/a/../b", "[z-a]"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(OptionError):
        Glob(pattern)


def test_what_is_in_a_matching_directory_is_meant_but_for_what_is_left_out() -> None:
    scope = Scope(only=["/usr"], without=["*.pyc", "/usr/tmp"])
    assert scope.of(b"", IN) is ABOVE
    assert [scope.has(path) for path in (b"usr", b"usr/a/b", b"usr/a/b.pyc", b"usr/tmp/x", b"etc")] == [
        True, True, False, False, False,
    ]  # fmt: skip
