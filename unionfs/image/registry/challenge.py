"""WWW-Authenticate: what a server wants to see before it answers (RFC 9110, 11.6.1; distribution's token spec).

    Bearer realm="https://auth.example.com/token",service="example.com",scope="repository:a/b:pull"
    Basic realm="Registry Realm"

One header may hold several challenges, and a comma separates both these and the parameters of one. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_parameter = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))[ \t]*(?=,|$)', re.DOTALL).match
_token68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)").match
_scheme = re.compile(rf"({_TOKEN})(?:[ \t]+|[ \t]*(?=,|$))").match
_separator = re.compile(r"[ \t,]*").match
_escaped = re.compile(r"\\(.)", re.DOTALL)

#: Characters of one header that are looked at.
_LIMIT: Final = 16 << 10


class Challenge(NamedTuple):
    """`scheme` and the names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse(values: Iterable[str]) -> list[Challenge]:
    """The challenges of all headers, in order. What cannot be read ends its header, and is left out."""
    return [challenge for value in values for challenge in _parse(value[:_LIMIT])]


def _parse(value: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(value):
        at = _end(_separator(value, at))
        if found and (parameter := _parameter(value, at)):
            name, quoted, plain = parameter.groups()
            found[-1][1].setdefault(name.lower(), plain if quoted is None else _escaped.sub(r"\1", quoted))
            at = parameter.end()
        elif scheme := _scheme(value, at):
            found.append((scheme[1].lower(), {}))
            at = scheme.end()
            if not _parameter(value, at) and (opaque := _token68(value, at)):
                at = opaque.end()
        else:
            break
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # the pattern fits nothing, too
    return match.end()
