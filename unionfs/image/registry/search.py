"""Searching: the names of repositories. Docker Hub has an interface for it; of others the catalogue is read
(distribution docs/spec/api.md, "Catalog"), which not every registry shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import httpx2

from unionfs.errors import ImageFormatError, OptionError, RegistryError
from unionfs.image.models import parse_json
from unionfs.image.reference import DEFAULT_DOMAIN
from unionfs.image.registry.client import Client, RegistryOptions
from unionfs.image.registry.failures import Doing, plain

MAX_LIMIT: Final = 100
_PAGE: Final = 1000
_ANSWER: Final = 16 << 20
_HUB_INDEX: Final = "index.docker.io"
_NO_CATALOGUE: Final = (404, 405)
_next_page = re.compile(r"<([^>]*)>\s*;(?:[^,]*;)?\s*rel=\"?next\"?", re.IGNORECASE).search


@dataclass(frozen=True, slots=True)
class Match:
    """One repository; a catalogue knows its name only."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False


def search(term: str, options: RegistryOptions, limit: int = 25) -> list[Match]:
    """Up to `limit` repositories whose names contain `term`; `REGISTRY/TERM` asks that registry. RegistryError."""
    if not 1 <= limit <= MAX_LIMIT:
        raise OptionError(f"limit {limit} is outside the range of [1, {MAX_LIMIT}]")
    registry, slash, rest = term.partition("/")
    named = ":" in registry or (slash and (registry == "localhost" or "." in registry))
    if not named or registry in (DEFAULT_DOMAIN, _HUB_INDEX):
        return _hub(rest if named else term, options, limit)
    found: list[Match] = []
    with Client(registry, options) as client:
        for name in _catalogue(client):
            if rest in name:
                found.append(Match(f"{registry}/{plain(name)}"))
                if len(found) == limit:
                    break
    return found


def _catalogue(client: Client) -> Iterator[str]:
    """All names, page by page."""
    what = Doing(f"the catalogue of {client.registry}")
    client.meet()
    path, seen = f"/v2/_catalog?n={_PAGE}", set[httpx2.URL]()
    while (url := client.url(path)) not in seen:
        seen.add(url)
        answer = client.request(
            what, "GET", path, scopes=("registry:catalog:*",), limit=_ANSWER, expect=(200, *_NO_CATALOGUE)
        )
        if answer.status in _NO_CATALOGUE:
            raise RegistryError(f"{client.registry} shows no catalogue", hint="not every registry has one to search in")
        repositories = _field(answer.body, "repositories", what)
        yield from (name for name in repositories if isinstance(name, str))
        following = _next_page(answer.headers.get("link", ""))
        if following is None:
            return
        path = following[1]


def _hub(term: str, options: RegistryOptions, limit: int) -> list[Match]:
    what = Doing("search")
    with Client(_HUB_INDEX, options) as client:
        query = urlencode({"q": term, "n": limit})
        answer = client.request(what, "GET", f"/v1/search?{query}", limit=_ANSWER)
    return [_match(one) for one in _field(answer.body, "results", what) if isinstance(one, dict)][:limit]


def _match(one: dict[str, Any]) -> Match:
    name, description, stars = one.get("name"), one.get("description"), one.get("star_count")
    return Match(
        plain(name if isinstance(name, str) else ""),
        plain(description if isinstance(description, str) else "", 1000),
        stars if isinstance(stars, int) else 0,
        one.get("is_official") is True,
    )


def _field(body: bytes, name: str, what: Doing) -> list[Any]:
    try:
        document = parse_json(body, what.thing, _ANSWER)
    except ImageFormatError as error:
        raise RegistryError(str(error)) from None
    value = document.get(name) if isinstance(document, dict) else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise RegistryError(f"{what.thing}: {name} is no list")
    return value
