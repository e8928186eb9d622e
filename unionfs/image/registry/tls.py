"""Certificates for a registry, by the directories that docker and podman have for them (containers-certs.d(5)).

    DIR/*.crt           authorities that are trusted besides the system's
    DIR/*.cert, *.key   pairs of a client's own

DIR is --cert-dir, or else HOST[:PORT] in each of ~/.config/containers/certs.d, /etc/containers/certs.d and
/etc/docker/certs.d. The system's authorities: $SSL_CERT_FILE, $SSL_CERT_DIR, or OpenSSL's.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence

import httpx2

from unionfs.errors import RegistryError
from unionfs.image.registry.credentials import config_home
from unionfs.image.registry.failures import plain

SYSTEM_DIRECTORIES = ("/etc/containers/certs.d", "/etc/docker/certs.d")


def directories(host: str, environ: Mapping[str, str]) -> list[str]:
    """Where certificates for `host` (with its port) may be."""
    own = os.path.join(config_home(environ), "containers/certs.d")
    return [os.path.join(base, host) for base in (own, *SYSTEM_DIRECTORIES)]


def context(
    certificates: Sequence[str] = (),
    *,
    authorities: Sequence[str] = (),
    required: bool = False,
    verified: bool = True,
) -> ssl.SSLContext:
    """Trusts the system's authorities, and those in the directories `certificates`, of which a client's own are taken
    too, and `authorities`. `required`: `certificates` must be there. Not `verified`: takes any certificate.

    RegistryError for files that are none."""
    made = _of_the_system() if verified else httpx2.create_ssl_context(verify=False)
    for directory in (*certificates, *authorities):
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            if required:
                raise RegistryError(f"{directory} is no directory of certificates") from None
            continue
        except OSError as error:
            raise RegistryError(f"{directory} cannot be read: {error.strerror}") from error
        for name in names:
            path = os.path.join(directory, name)
            if name.endswith(".crt") and verified:
                _trust(made, path)
            elif name.endswith(".cert") and directory in certificates:
                _be(made, path)
    return made


def _of_the_system() -> ssl.SSLContext:
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # an SSLError too
        why = plain(str(error.strerror or error))
        raise RegistryError(
            f"the system's certificates cannot be read: {why}", hint="look at SSL_CERT_FILE and SSL_CERT_DIR"
        ) from error


def _trust(made: ssl.SSLContext, path: str) -> None:
    try:
        made.load_verify_locations(cafile=path)
    except OSError as error:
        raise _unusable(path, error) from error


def _be(made: ssl.SSLContext, path: str) -> None:
    key = os.path.splitext(path)[0] + ".key"
    if not os.path.exists(key):
        raise RegistryError(f"{path} has no key beside it", hint=f"{key} is missing")
    try:
        made.load_cert_chain(path, key)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: OSError) -> RegistryError:
    return RegistryError(f"{path} cannot be used as a certificate: {plain(str(error.strerror or error))}")
