"""WWW-Authenticate headers as registries send them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unionfs.image.registry.challenge import Challenge, parse

HUB = 'Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull,push"'


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        (
            HUB,
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example.com/token",
                        "service": "registry.example.com",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('Basic realm="Registry Realm"', [("basic", {"realm": "Registry Realm"})]),
        ("Basic realm=plain", [("basic", {"realm": "plain"})]),
        ('BASIC REALM = "x" , charset="UTF-8"', [("basic", {"realm": "x", "charset": "UTF-8"})]),
        ('Basic realm="a \\"quoted\\" word"', [("basic", {"realm": 'a "quoted" word'})]),
        ('Basic realm="a, Bearer realm=x"', [("basic", {"realm": "a, Bearer realm=x"})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate YWJj==", [("negotiate", {})]),
        ('Negotiate YWJj==, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="x",error="invalid_token"', [("bearer", {"realm": "x", "error": "invalid_token"})]),
        ('Basic realm="x", Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        (',, Basic realm="x",,', [("basic", {"realm": "x"})]),
        ('Basic realm="first", realm="second"', [("basic", {"realm": "first"})]),
        ("", []),
        ('"', []),
        ('Basic realm="x", "', [("basic", {"realm": "x"})]),
        ('Basic realm="no end', [("basic", {})]),
    ],
)
def test_header_is_read(value: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse([value]) == [Challenge(scheme, parameters) for scheme, parameters in challenges]


def test_headers_add_up() -> None:
    assert [challenge.scheme for challenge in parse(["Basic realm=x", "Bearer realm=y"])] == ["basic", "bearer"]


@given(st.lists(st.text(alphabet='Bearer realm="\\,=x \t', max_size=60), max_size=3))
def test_any_header_is_read_in_time(values: list[str]) -> None:
    for challenge in parse(values):
        assert challenge.scheme == challenge.scheme.lower() != ""


def test_long_header_is_cut() -> None:
    assert parse(["x," * 100_000])[-1] == Challenge("x", {})
    assert len(parse(["x," * 100_000])) == 8192
