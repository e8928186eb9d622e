"""Who one is at a registry: docker's `config.json` and podman's `auth.json`, of one form (containers-auth.json(5)).

    {"auths": {"example.com": {"auth": BASE64("user:password"), "identitytoken": …}}, "credsStore": NAME,
     "credHelpers": {"example.com": NAME}}

Read, the first that knows the registry: --authfile or $REGISTRY_AUTH_FILE, and then no other; else
$XDG_RUNTIME_DIR/containers/auth.json (without it /run/containers/UID/auth.json), $XDG_CONFIG_HOME/containers/auth.json,
$DOCKER_CONFIG/config.json or ~/.docker/config.json. Keys of podman's may name a part of a registry, "example.com/team";
the longest that fits counts. Docker Hub's key is docker.io for podman, an address for docker.

Written: --authfile or $REGISTRY_AUTH_FILE, else the file that knows the registry, else docker's; all else in the file
stays as it is. Forgotten: in all that are read.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from unionfs.changeset.replacing import replace_file
from unionfs.errors import ImageFormatError, RegistryError
from unionfs.image.models import parse_json
from unionfs.image.reference import DEFAULT_DOMAIN
from unionfs.image.registry import helpers
from unionfs.image.registry.helpers import Secret

#: What docker calls Docker Hub where it keeps credentials.
HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_HOSTS: Final = ("index.docker.io", "registry-1.docker.io", DEFAULT_DOMAIN)
_TOKEN_USER: Final = "<token>"
_LIMIT: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password, or an identity token of OAuth2, or a token for the registry itself."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617), "" where there is no name."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def hostname(key: str) -> str:
    """The registry that a key of an auth file means, port included (docker's ConvertToHostname)."""
    host = key.removeprefix("http://").removeprefix("https://").partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB_HOSTS else host


def home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")


def config_home(environ: Mapping[str, str]) -> str:
    """XDG base directory specification."""
    return environ.get("XDG_CONFIG_HOME") or os.path.join(home(environ), ".config")


class AuthFiles:
    """The auth files of a user with this environment and number. RegistryError for a file that cannot be read."""

    def __init__(self, environ: Mapping[str, str], uid: int, authfile: str | None = None) -> None:
        self._environ = environ
        explicit = authfile or environ.get("REGISTRY_AUTH_FILE")
        docker = os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home(environ), ".docker"), "config.json")
        runtime = environ.get("XDG_RUNTIME_DIR")
        run = os.path.join(runtime, "containers") if runtime else f"/run/containers/{uid}"
        podman = (os.path.join(run, "auth.json"), os.path.join(config_home(environ), "containers", "auth.json"))
        self.paths: tuple[str, ...] = (explicit,) if explicit else (*podman, docker)
        #: Where what no file knows goes.
        self.written = explicit or docker

    def find(self, registry: str, path: str = "") -> Credentials | None:
        """Those for the repository `path` at `registry` (host and port; docker.io). None: nobody."""
        for file in self.paths:
            document = _read(file)
            found = self._helped(document, registry) or _in_file(document, registry, path, file)
            if found is not None:
                return found
        return None

    def registries(self) -> list[str]:
        """Those that some credentials are kept for, by a helper too. A file that cannot be read has none."""
        found: dict[str, None] = {}
        for file in self.paths:
            try:
                document = _read(file)
            except RegistryError:
                continue
            for kept in ("auths", "credHelpers"):
                found.update(dict.fromkeys(hostname(key) for key in _mapping(document, kept)))
        return list(found)

    def _helped(self, document: Mapping[str, Any], registry: str) -> Credentials | None:
        name = _helper(document, registry)
        if not name:
            return None
        secret = helpers.get(name, _key(registry), self._environ)
        if secret is None:
            return None
        if secret.username == _TOKEN_USER:
            return Credentials(identity_token=secret.secret)
        return Credentials(secret.username, secret.secret)

    def save(self, registry: str, credentials: Credentials) -> str | None:
        """Keep them where `find` sees them first. The file they stand in as they are; None where a helper keeps them.
        Atomic."""
        file = next(file for file in self.paths if file == self.written or self._knows(file, registry))
        document = _read(file)
        if name := _helper(document, registry):
            helpers.store(name, _key(registry), Secret(credentials.username, credentials.password), self._environ)
            return None
        entry = {"auth": credentials.basic.removeprefix("Basic ")}
        auths = _mapping(document, "auths")
        key = next(_keys(auths, registry), _key(registry))
        _write(file, {**document, "auths": {**auths, key: entry}})
        return file

    def _knows(self, file: str, registry: str) -> bool:
        """Whether `find` looks no further; what it finds may be damaged."""
        document = _read(file)
        auths = _mapping(document, "auths")
        return any(auths[key] for key in _keys(auths, registry)) or self._helped(document, registry) is not None

    def erase(self, registry: str) -> bool:
        """Forget them. Whether there were any."""
        erased = [self._erase_in(file, registry) for file in self.paths]
        return any(erased)

    def _erase_in(self, file: str, registry: str) -> bool:
        document = _read(file)
        found = False
        if name := _helper(document, registry):
            found = helpers.get(name, _key(registry), self._environ) is not None
            helpers.erase(name, _key(registry), self._environ)
        auths = _mapping(document, "auths")
        gone = set(_keys(auths, registry))
        if gone:
            _write(file, {**document, "auths": {key: value for key, value in auths.items() if key not in gone}})
        return found or bool(gone)


def _write(file: str, document: Mapping[str, Any]) -> None:
    path = os.path.realpath(file)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        data = json.dumps(document, indent="\t", ensure_ascii=False).encode() + b"\n"
        replace_file(os.fsencode(path), data, mode=0o600)
    except OSError as error:
        raise RegistryError(f"{file} cannot be written: {error.strerror}") from error


def _read(path: str) -> Mapping[str, Any]:
    """{} for none."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}", hint="name another with --authfile") from error
    if not data.strip():
        return {}
    try:
        document = parse_json(data, path, _LIMIT)
    except ImageFormatError as error:
        raise RegistryError(str(error), hint="mend it, or name another file with --authfile") from None
    return document if isinstance(document, dict) else {}


def _mapping(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _key(registry: str) -> str:
    return HUB_KEY if registry == DEFAULT_DOMAIN else registry


def _helper(document: Mapping[str, Any], registry: str) -> str:
    """The helper that keeps the credentials of a registry, "" for none."""
    for key, name in _mapping(document, "credHelpers").items():
        if _is_for(key, registry) and isinstance(name, str):
            return name
    store = document.get("credsStore")
    return store if isinstance(store, str) else ""


def _in_file(document: Mapping[str, Any], registry: str, path: str, file: str) -> Credentials | None:
    auths = _mapping(document, "auths")
    for key in _keys(auths, registry, path):
        entry = auths[key]
        if isinstance(entry, dict) and (found := _entry(entry, f"{file}: {key}")) is not None:
            return found
    return None


def _keys(auths: Mapping[str, Any], registry: str, path: str = "") -> Iterator[str]:
    """Those that fit, the longest first; then addresses, as docker has them."""
    name = f"{registry}/{path}" if path else registry
    while name:
        if name in auths:
            yield name
        name = name.rpartition("/")[0]
    for key in auths:
        if key != registry and _is_for(key, registry):
            yield key


def _is_for(key: str, registry: str) -> bool:
    """Of all of the registry: "example.com/team" is not, "https://example.com/v1/" is."""
    return hostname(key) == registry and ("://" in key or "/" not in key)


def _entry(entry: Mapping[str, Any], what: str) -> Credentials | None:
    """None where a helper keeps it: docker leaves {} behind."""
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if encoded := texts.get("auth", ""):
        try:
            username, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise RegistryError(f"{what}: auth is not the base64 of user:password", hint="log in again")
        password = password.rstrip("\0")  # docker's old versions padded it
    found = Credentials(username, password, texts.get("identitytoken", ""), texts.get("registrytoken", ""))
    return found if found != Credentials() else None
