"""Registries: images pulled into a store and pushed from it, credentials, and what there is to be found.

`options` says how registries are reached; None is as the environment has it. Everything raises `RegistryError`, or
another ImageError, whose hint says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from unionfs.errors import ImageError, RegistryError
from unionfs.image import reference as references
from unionfs.image.lazy.notes import Note, Origin
from unionfs.image.registry import login as _login
from unionfs.image.registry import search as _search
from unionfs.image.registry.client import Client, RegistryOptions
from unionfs.image.registry.credentials import Credentials
from unionfs.image.registry.pull import Pulled, pull
from unionfs.image.registry.pull import fetch_layers as _fetch_layers
from unionfs.image.registry.push import Pushed, push
from unionfs.image.registry.search import Match
from unionfs.image.registry.transfer import Report
from unionfs.image.store import Store

__all__ = ["fetch_image", "login", "logout", "pull_image", "push_image", "search"]


def pull_image(
    store: Store,
    name: str,
    *,
    platform: str | None = None,
    options: RegistryOptions | None = None,
    report: Report | None = None,
    unpack: bool = True,
    lazy: bool = False,
) -> Pulled:
    """Bring the image that `name` means at its registry into the store. Idempotent; a failure changes nothing there.

    `platform` chooses from a multi-platform one; None is this machine's. `unpack`: make its layers ready to be mounted
    while they come; else the first mount does it. `lazy`: bring only the table of contents of a layer that can be
    fetched in parts (eStargz, zstd:chunked); its data comes when it is read, and all of it with the next pull that is
    not lazy.
    """
    reference = references.parse_normalized(name)
    with Client(reference.domain, _checked(options), reference.path) as client:
        return pull(store, client, reference, platform, report, unpack=unpack, lazy=lazy)


def fetch_image(
    store: Store,
    name: str,
    *,
    platform: str | None = None,
    options: RegistryOptions | None = None,
    report: Report | None = None,
) -> int:
    """Bring what a lazy pull has left out of an image in the store, from where it was pulled; how many layers that was.
    `options`: in place of those it was pulled with. RegistryError, ImageFormatError; the store is then as it was."""
    notes = store.not_fetched([store.resolve(name, platform)])
    fetch_layers(store, notes, options, report)
    return len(notes)


def fetch_layers(
    store: Store, notes: Sequence[Note], options: RegistryOptions | None = None, report: Report | None = None
) -> None:
    """Bring layers that were not fetched, each from the repository that its note names."""
    by_origin: dict[Origin, list[Note]] = {}
    for note in notes:
        by_origin.setdefault(note.origin, []).append(note)
    for origin, some in by_origin.items():
        reference = references.parse_normalized(origin.name)
        chosen = options or RegistryOptions(origin.insecure, origin.cert_dir, origin.authfile)
        try:
            with Client(reference.domain, chosen, reference.path) as client:
                _fetch_layers(store, client, reference, some, report or (lambda transfer: None))
        except RegistryError as error:
            what = f"{len(some)} of its layers were" if len(some) > 1 else "a layer of it was"
            raise RegistryError(
                f"{origin.name}: {what} not fetched yet, and cannot be: {error}", hint=error.hint
            ) from error


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
    store.complete([store.resolve(name, platform)])
    with Client(reference.domain, _checked(options), reference.path) as client:
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
    return _search.search(term, _checked(options), limit)


def _checked(options: RegistryOptions | None) -> RegistryOptions:
    return (options or RegistryOptions()).checked()
