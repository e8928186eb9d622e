"""`--format`: tables, JSON and templates as the docker command line prints them, which was asked (version 28.2.2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from cli import human, template

HEADINGS = {"ID": "IMAGE ID", "Tag": "TAG", "Comment": "COMMENT", "Digest": "DIGEST"}
DEFAULT = "{{.Tag}}\t{{.ID}}\t{{.Comment}}"
ROWS = [
    {"ID": "a" * 12, "Tag": "latest", "Comment": "", "Digest": "<none>"},
    {"ID": "b" * 12, "Tag": "1", "Comment": "x & y", "Digest": "sha256:e"},
]


def render(fmt: str, rows: list[dict[str, Any]] = ROWS) -> list[str]:
    return template.render(rows, fmt, default=DEFAULT, headings=HEADINGS)


@pytest.mark.parametrize(
    ("fmt", "lines"),
    [
        ("table", ["TAG       IMAGE ID       COMMENT", "latest    aaaaaaaaaaaa   ", "1         bbbbbbbbbbbb   x & y"]),
        (r"table {{.ID}}\t{{.Tag}}", ["IMAGE ID       TAG", "aaaaaaaaaaaa   latest", "bbbbbbbbbbbb   1"]),
        ("table {{.ID}}", ["IMAGE ID", "aaaaaaaaaaaa", "bbbbbbbbbbbb"]),
        (
            "json",
            [
                r'{"Comment":"","Digest":"\u003cnone\u003e","ID":"aaaaaaaaaaaa","Tag":"latest"}',
                r'{"Comment":"x \u0026 y","Digest":"sha256:e","ID":"bbbbbbbbbbbb","Tag":"1"}',
            ],
        ),
        (
            "{{json .}}",
            [
                r'{"Comment":"","Digest":"\u003cnone\u003e","ID":"aaaaaaaaaaaa","Tag":"latest"}',
                r'{"Comment":"x \u0026 y","Digest":"sha256:e","ID":"bbbbbbbbbbbb","Tag":"1"}',
            ],
        ),
        ("{{.Tag}}={{ .ID }}", ["latest=aaaaaaaaaaaa", "1=bbbbbbbbbbbb"]),
        ("{{json .Comment}} {{upper .Tag}}", ['"" LATEST', r'"x \u0026 y" 1']),
        (r"{{.Tag}}\n-", ["latest", "-", "1", "-"]),
        ("x", ["x", "x"]),
    ],
)
def test_rows_are_printed_as_docker_prints_them(fmt: str, lines: list[str]) -> None:
    assert render(fmt) == lines


def test_a_table_of_nothing_has_headings_and_the_rest_nothing() -> None:
    assert render("table", []) == ["TAG       IMAGE ID   COMMENT"]
    assert render("json", []) == render("{{.ID}}", []) == []


@pytest.mark.parametrize(
    ("fmt", "message"),
    [
        ("{{.Bogus}}", "there is no field Bogus"),
        ("{{range .Tag}}x{{end}}", "not understood here: {{range .Tag}}"),
        ("{{.Tag", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{json .Nope}}", "there is no field Nope"),
        ("{{.Tag.More}}", "there is no .Tag.More in it"),
        ("table {{if .Tag}}", "not understood here"),
    ],
)
def test_a_template_that_is_not_understood_is_refused(fmt: str, message: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        render(fmt)
    assert message in str(caught.value)


DOCUMENT = {"Id": "sha256:1", "Config": {"Cmd": ["httpd", "-f"], "Env": None, "On": True, "Labels": {"b": "2", "a": 1}}}


@pytest.mark.parametrize(
    ("fmt", "text"),
    [
        ("{{.Id}}", "sha256:1"),
        ("{{.Config.Cmd}}", "[httpd -f]"),
        ("{{json .Config.Cmd}}", '["httpd","-f"]'),
        ('{{join .Config.Cmd ", "}}', "httpd, -f"),
        ("{{len .Config.Cmd}} {{len .Config.Env}}", "2 0"),
        ("{{.Config.Env}} {{.Config.On}}", "<no value> true"),
        ("{{.Config.Labels}}", "map[a:1 b:2]"),
        ("{{json .}}", template.go_json(DOCUMENT)),
    ],
)
def test_a_template_reaches_into_a_document(fmt: str, text: str) -> None:
    assert template.fill(template.parse(fmt), DOCUMENT) == text


ZEROS: dict[str, Any] = {
    "Config": {"User": "", "Env": [], "Cmd": [], "Volumes": {}, "Labels": {}, "Health": None, "Tty": False}
}


@pytest.mark.parametrize(
    ("fmt", "text"),
    [
        ("{{.Config.Cmd}} {{.Config.Env}} {{.Config.Volumes}} {{.Config.Health}}", "[httpd -f] [] map[] <nil>"),
        ("[{{.Config.User}}] {{.Config.Tty}}", "[] false"),
        ("{{json .Config.Env}} {{json .Config.Volumes}} {{json .Config.Health}}", "null null null"),
        ("{{json .Config.User}} {{json .Config.Tty}}", '"" false'),
        ("{{len .Config.Volumes}}{{join .Config.Env `,`}}{{upper .Config.User}}", "0"),
        ('{{index .Config.Cmd 1}} {{index .Config.Labels "b"}}', "-f 2"),
        ('{{index .Config "Cmd" 0}} {{index .Config `Labels` "a"}}', "httpd 1"),
        ('[{{index .Config.Volumes "/x"}}]', "[]"),
    ],
)
def test_what_a_document_does_not_say_is_as_empty_as_dockers_types(fmt: str, text: str) -> None:
    assert template.fill(template.parse(fmt, zeros=ZEROS), DOCUMENT) == text


@pytest.mark.parametrize(
    ("fmt", "message"),
    [
        ("{{index .Config.Cmd 2}}", "index out of range: 2"),
        ('{{index .Config.Cmd "a"}}', 'cannot index this with "a"'),
        ("{{index .Id 0}}", "cannot index this with 0"),
        ("{{index .Config.Env 0}}", "index out of range: 0"),
        ("{{index .Config}}", "not understood here"),
        ("{{index .Config Cmd}}", "not understood here"),
        ("{{.Config.Bogus}}", "there is no .Config.Bogus in it"),
        ("{{.Config.User.More}}", "there is no .Config.User.More in it"),
    ],
)
def test_what_is_not_in_a_document_is_refused(fmt: str, message: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        template.fill(template.parse(fmt, zeros=ZEROS), DOCUMENT)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("count", "digits", "text"),
    [
        (0, 3, "0B"), (999, 3, "999B"), (1000, 3, "1kB"), (4261502, 3, "4.26MB"), (4261502, 4, "4.262MB"),
        (100000, 3, "100kB"), (1234567890, 3, "1.23GB"), (999600, 3, "1e+03kB"), (12, 3, "12B"),
    ],
)  # fmt: skip
def test_a_size_is_shown_for_people(count: int, digits: int, text: str) -> None:
    assert human.size(count, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (5, "5 seconds"), (59.9, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (5399, "About an hour"), (5400, "2 hours"), (108000, "30 hours"), (172799, "2 days"), (86400 * 13, "13 days"),
        (86400 * 14, "2 weeks"), (86400 * 40, "5 weeks"), (86400 * 60, "2 months"), (86400 * 800, "2 years"),
    ],
)  # fmt: skip
def test_an_age_is_shown_for_people(seconds: float, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert human.since(now - timedelta(seconds=seconds), now) == f"{text} ago"


def test_an_unknown_age_is_not_made_up() -> None:
    assert human.since(None, datetime(2026, 1, 1, tzinfo=UTC)) == "N/A"
