"""Credential helpers: programs `docker-credential-NAME` that keep secrets (docker/docker-credential-helpers).

    get     server on stdin      -> {"ServerURL", "Username", "Secret"}; "credentials not found…" and status 1
    store   the same JSON on stdin
    erase   server on stdin

The user name "<token>" says that the secret is an identity token.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from typing import Final, NamedTuple

from unionfs.errors import ImageFormatError, RegistryError
from unionfs.image.models import parse_json
from unionfs.image.registry.failures import plain

_is_name = re.compile(r"[A-Za-z0-9_.-]+").fullmatch
_ABSENT: Final = "credentials not found"
_LIMIT: Final = 1 << 20
#: Seconds. Some ask a person to unlock what they keep.
_PATIENCE: Final = 120
_WHENCE: Final = "mend it, or take it out of credsStore and credHelpers in the auth file"


class Secret(NamedTuple):
    username: str
    secret: str


def get(name: str, server: str, environ: Mapping[str, str]) -> Secret | None:
    """None where the helper has nothing for `server`. RegistryError where it fails."""
    output = _run(name, "get", server, environ)
    if output is None:
        return None
    try:
        answer = parse_json(output, f"the answer of docker-credential-{name}", _LIMIT)
    except ImageFormatError as error:
        raise RegistryError(str(error), hint=_WHENCE) from None
    if not isinstance(answer, dict) or not all(isinstance(answer.get(key), str) for key in ("Username", "Secret")):
        raise RegistryError(f"the answer of docker-credential-{name} holds no Username and Secret", hint=_WHENCE)
    return Secret(answer["Username"], answer["Secret"])


def store(name: str, server: str, secret: Secret, environ: Mapping[str, str]) -> None:
    request = {"ServerURL": server, "Username": secret.username, "Secret": secret.secret}
    _run(name, "store", json.dumps(request), environ)


def erase(name: str, server: str, environ: Mapping[str, str]) -> None:
    """Idempotent."""
    _run(name, "erase", server, environ)


def _run(name: str, verb: str, text: str, environ: Mapping[str, str]) -> bytes | None:
    program = f"docker-credential-{name}"
    if not _is_name(name):
        raise RegistryError(f"{name[:100]!r} is no name of a credential helper", hint=_WHENCE)
    try:
        done = subprocess.run(
            [program, verb],
            input=text.encode(),
            capture_output=True,
            env=dict(environ),
            timeout=_PATIENCE,
        )
    except OSError as error:
        raise RegistryError(
            f"{program} cannot be run: {error.strerror}",
            hint="install it, or take it out of credsStore and credHelpers in the auth file",
        ) from error
    except subprocess.TimeoutExpired:
        raise RegistryError(f"{program} {verb} does not end", hint=_WHENCE) from None
    if done.returncode == 0:
        return done.stdout
    said = plain((done.stdout + done.stderr).decode(errors="replace"))
    if _ABSENT in said:
        return None
    raise RegistryError(f"{program} {verb} failed: {said or f'status {done.returncode}'}", hint=_WHENCE)
