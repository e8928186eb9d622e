"""Registries: images pulled into a store and pushed from it, credentials, and what there is to be found.

`options` says how registries are reached; None is as the environment has it. Everything raises `RegistryError`, or
another ImageError, whose hint says what to do.
"""

from __future__ import annotations

from unionfs.errors import ImageError
from unionfs.image import reference as references
from unionfs.image.registry import login as _login
from unionfs.image.registry import search as _search
from unionfs.image.registry.client import Client, RegistryOptions
from unionfs.image.registry.credentials import Credentials
from unionfs.image.registry.pull import Pulled, pull
from unionfs.image.registry.push import Pushed, push
from unionfs.image.registry.search import Match
from unionfs.image.registry.transfer import Report
from unionfs.image.store import Store

__all__ = ["login", "logout", "pull_image", "push_image", "search"]


def pull_image(
    store: Store,
    name: str,
    *,
    platform: str | None = None,
    options: RegistryOptions | None = None,
    report: Report | None = None,
    unpack: bool = True,
) -> Pulled:
    """Bring the image that `name` means at its registry into the store. Idempotent; a failure changes nothing there.

    `platform` chooses from a multi-platform one; None is this machine's. `unpack`: make its layers ready to be mounted
    while they come; else the first mount does it.
    """
    reference = references.parse_normalized(name)
    with Client(reference.domain, options or RegistryOptions(), reference.path) as client:
        return pull(store, client, reference, platform, report, unpack=unpack)


def push_image(
    store: Store,
    name: str,
    *,
    platform: str | None = None,
    options: RegistryOptions | None = None,
    report: Report | None = None,
) -> Pushed:
    """Give the image called `name` to the registry in that name. `platform`: one of a multi-platform image alone."""
    reference = references.parse_normalized(name)
    if reference.digest is not None:
        raise ImageError("cannot push a digest reference", hint="give a name and a tag")
    with Client(reference.domain, options or RegistryOptions(), reference.path) as client:
        return push(store, client, reference, platform, report)


def login(registry: str, username: str, password: str, *, options: RegistryOptions | None = None) -> str | None:
    """Try the credentials at `registry` ("" is Docker Hub), and keep them. The file in which they now stand as they
    are, or None where a credential helper keeps them."""
    who = Credentials(username, password)
    return _login.login(_login.registry_of(registry), who, options or RegistryOptions())


def logout(registry: str, *, options: RegistryOptions | None = None) -> bool:
    """Forget the credentials for `registry`; whether there were any."""
    return _login.logout(_login.registry_of(registry), options or RegistryOptions())


def search(term: str, *, limit: int = 25, options: RegistryOptions | None = None) -> list[Match]:
    """Repositories whose names contain `term`: of Docker Hub, or, written REGISTRY/TERM, of another registry."""
    return _search.search(term, options or RegistryOptions(), limit)
