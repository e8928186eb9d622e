"""The Authorization of requests to one registry: none, basic, or a token from the server that a challenge names
(distribution docs/spec/auth/token.md and oauth.md).

    401, WWW-Authenticate: Bearer realm=…,service=…   ->   GET realm?service=…&scope=…    {"token", "expires_in"}
                                                           POST, for an identity token    {"access_token", …}

Nothing is sent before the registry asks. Then tokens are fetched ahead, one for each set of scopes, and kept while they
live. Credentials are asked for once. Safe to use from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode

from unionfs.errors import ImageFormatError, RegistryError
from unionfs.image.models import parse_json
from unionfs.image.registry.challenge import Challenge
from unionfs.image.registry.credentials import Credentials

#: Seconds that a token lives at least (token.md), and that are left when it is too old to be used.
_LIFE: Final = 60
_RESERVE: Final = 10
_CLIENT: Final = "unionfs"


class Fetch(Protocol):
    """Asks a token server; the body of its answer. RegistryError where it refuses."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> bytes: ...


class _Token(NamedTuple):
    value: str
    until: float


class Authorizer:
    """`find` gives the credentials, None if there are none."""

    def __init__(
        self, find: Callable[[], Credentials | None], fetch: Fetch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._find, self._fetch, self._clock = find, fetch, clock
        self._credentials: Credentials | None = None
        self._looked = False
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}
        #: By the scopes of a request: what the registry wants for it besides.
        self._more: dict[frozenset[str], frozenset[str]] = {}
        self._lock = threading.RLock()

    @property
    def known(self) -> bool:
        """Were credentials used?"""
        return self._looked and self._credentials is not None

    def header(self, scopes: Iterable[str]) -> str | None:
        """What to send with a request that needs `scopes` ("repository:NAME:pull,push")."""
        wanted = frozenset(scopes)
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return (self._who() or Credentials()).basic or None
            token = self._tokens.get(wanted)
            if token is None or token.until < self._clock():
                more = self._more.get(wanted, frozenset())
                token = self._tokens[wanted] = self._new_token(self._challenge, wanted | more)
            return f"Bearer {token.value}"

    def note(self, challenges: Iterable[Challenge]) -> bool:
        """The registry asks for one of these. False: for nothing that is known here."""
        chosen = _choose(list(challenges))
        with self._lock:
            self._challenge = chosen or self._challenge
        return chosen is not None

    def challenged(self, challenges: Iterable[Challenge], sent: str | None, scopes: Iterable[str]) -> bool:
        """A request with the header `sent` was answered 401: is there something better to send now?"""
        with self._lock:
            if not self.note(challenges):
                return False
            wanted = frozenset(scopes)
            if self._challenge is not None:
                told = self._challenge.parameters.get("scope", "").split()
                more = frozenset(scope for scope in told if not any(_covers(one, scope) for one in wanted))
                self._more[wanted] = self._more.get(wanted, frozenset()) | more
            token = self._tokens.get(wanted)
            if token is not None and sent == f"Bearer {token.value}":
                del self._tokens[wanted]
            return self.header(wanted) not in (None, sent)

    def _who(self) -> Credentials | None:
        if not self._looked:
            self._credentials, self._looked = self._find(), True
        return self._credentials

    def _new_token(self, challenge: Challenge, scopes: frozenset[str]) -> _Token:
        who = self._who() or Credentials()
        if who.registry_token:
            return _Token(who.registry_token, float("inf"))
        realm, service = challenge.parameters["realm"], challenge.parameters.get("service", "")
        query = [("service", service)] if service else []
        if who.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                *query,
                ("client_id", _CLIENT),
                ("scope", " ".join(sorted(scopes))),
                ("refresh_token", who.identity_token),
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._read(self._fetch("POST", realm, headers, urlencode(form).encode()))
        query += [("scope", scope) for scope in sorted(scopes)]
        if who.username:
            query += [("account", who.username)]
        separator = "&" if "?" in realm else "?"
        url = realm + (separator + urlencode(query) if query else "")
        return self._read(self._fetch("GET", url, {"Authorization": who.basic} if who.basic else {}, None))

    def _read(self, body: bytes) -> _Token:
        try:
            answer: Any = parse_json(body, "the answer of the token server")
        except ImageFormatError as error:
            raise RegistryError(str(error)) from None
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        # It becomes part of a header.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryError("the token server answered without a token")
        life = answer.get("expires_in")
        life = life if isinstance(life, int) and 0 < life < 10**9 else _LIFE
        return _Token(token, self._clock() + max(life, _LIFE) - _RESERVE)


def _covers(scope: str, other: str) -> bool:
    """Of the same thing, at least the same actions ("type:name:action,…", where a name may have colons)."""
    (what, _, actions), (other_what, _, others) = scope.rpartition(":"), other.rpartition(":")
    return what == other_what and {*others.split(",")} <= {*actions.split(",")}


def _choose(challenges: list[Challenge]) -> Challenge | None:
    """A token, where one may be had."""
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
    return next((challenge for challenge in challenges if challenge.scheme == "basic"), None)
