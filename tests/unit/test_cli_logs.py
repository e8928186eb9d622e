"""`unionfs logs`: how people say when."""

from __future__ import annotations

import pytest
import typer

from cli.logs import moment

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", NOW - 600),
        ("1h2m3.5s", NOW - 3723.5),
        ("500ms", NOW - 0.5),  # all units of Go's time.ParseDuration
        ("1m500ms", NOW - 60.5),
        ("250us", NOW - 0.00025),
        ("0s", NOW),
        ("1700000000", 1_700_000_000),
        ("1700000000.5", 1_700_000_000.5),
        ("2026-11-26T12:00:00Z", 1_795_694_400),
        ("2026-11-26T12:00:00.25+01:00", 1_795_690_800.25),
    ],
)
def test_moment(text: str, seconds: float) -> None:
    assert moment(text, NOW) == pytest.approx(seconds * 1e9, abs=1000)


@pytest.mark.parametrize("text", ["", "yesterday", "5", "10 m", "m", "1d", "-1h", "1h1", "2026-13-01"])
def test_no_moment(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(text, NOW)
