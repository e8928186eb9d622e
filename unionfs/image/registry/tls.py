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

SYSTEM_DIRECTORIES = ("/etc/containers/certs.d", "/etc/docker/certs.d")


def directories(host: str, environ: Mapping[str, str]) -> list[str]:
    """Where certificates for `host` (with its port) may be."""
    own = os.path.join(config_home(environ), "containers/certs.d")
    return [os.path.join(base, host) for base in (own, *SYSTEM_DIRECTORIES)]


def unverified() -> ssl.SSLContext:
    """Takes any certificate."""
    return httpx2.create_ssl_context(verify=False)


def context(certificates: Sequence[str] = (), *, required: bool = False) -> ssl.SSLContext:
    """Trusts the system's authorities and those in the directories `certificates`; `required`: these must be there.

    RegistryError for files that are none."""
    made = httpx2.create_ssl_context()
    for directory in certificates:
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            if required:
                raise RegistryError(f"{directory} is no directory of certificates") from None
            continue
        except OSError as error:
            raise RegistryError(f"{directory} cannot be read: {error.strerror}") from error
        for name in names:
            _add(made, os.path.join(directory, name))
    return made


def _add(made: ssl.SSLContext, path: str) -> None:
    stem, suffix = os.path.splitext(path)
    try:
        if suffix == ".crt":
            made.load_verify_locations(cafile=path)
        elif suffix == ".cert":
            if not os.path.exists(stem + ".key"):
                raise RegistryError(f"{path} has no key beside it", hint=f"{stem}.key is missing")
            made.load_cert_chain(path, stem + ".key")
    except (ssl.SSLError, OSError) as error:
        raise RegistryError(f"{path} cannot be used as a certificate: {error.strerror or error}") from error
