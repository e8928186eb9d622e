"""`unionfs info`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated

import typer

from unionfs import api

from . import human
from .options import AsJson, AuthFile, CertDir, Insecure, open_store
from .output import as_json, text


def info(
    context: typer.Context,
    registries: Annotated[
        list[str] | None,
        typer.Option("--registry", metavar="HOST[:PORT]", help="See whether it can be reached. Repeat it."),
    ] = None,
    fmt: Annotated[
        str | None,
        typer.Option("-f", "--format", metavar="FORMAT", help="json, or a template as '{{.store.images}}'."),
    ] = None,
    insecure: Insecure = False,
    cert_dir: CertDir = None,
    authfile: AuthFile = None,
    json: AsJson = False,
) -> None:
    """Show where things are, and what unionfs can do on this machine: store, FUSE, containers, registries.

    `doctor` says what of it is a problem, and what to do.
    """
    options = api.RegistryOptions(insecure, cert_dir, authfile)
    found = api.info(open_store(context), registries or (), options=options)
    if json or fmt is not None:
        from . import template
        from .info_schemas import Information

        model = Information.of(found)
        if json or fmt == "json":
            as_json(model)
        else:
            text(template.fill(template.parse(fmt or "", Information.model_fields), model.model_dump()))
        return
    for line in _lines(found):
        text(line)


def _lines(found: api.Information) -> Iterator[str]:
    yield f"unionfs {found.version}, Python {found.python}, {found.kernel}, as user {found.user}"
    yield from _store(found.store)
    yield from _transport(found.transport)
    yield from _containers(found.containers)
    yield "Registries:" + ("" if found.registries else " no credentials")
    for one in found.registries:
        yield f" {one.name}: {', '.join(_registry(one))}"
    mounts = ", ".join(f"{count} {state}" for state, count in found.mounts.items())
    yield f"Mounts: {mounts or 'none'}"


def _store(store: api.StoreInfo) -> Iterator[str]:
    place = store.file_system
    yield f"Store: {os.fsdecode(store.directory)}"
    yield f" Images: {store.images}"
    yield f" Size: {human.size(store.size)}"
    yield f" Cache: {os.fsdecode(store.cache)}, {human.size(store.cache_size)}"
    yield f" File system: {place.type}, {human.size(place.free)} free"
    for name, there in place.abilities.items():
        yield f"  {name}: {there}" if there is not None else f"  {name}: no ({place.lacks[name]})"
    if "write" in place.lacks:
        yield f"  nothing can be made there: {place.lacks['write']}"


def _transport(transport: api.TransportInfo) -> Iterator[str]:
    yield f"Transport: {transport.name or 'none'}"
    if transport.problem is not None:
        yield f" Problem: {transport.problem}"
    if transport.fuse is not None:
        yield f" FUSE: {transport.fuse}"
        yield f" Passthrough: {'yes' if transport.passthrough else 'no'}"
        yield f" Features: {' '.join(transport.features)}"
    for name, without in transport.missing.items():
        yield f" Without {name}: {without}"


def _containers(containers: api.ContainersInfo) -> Iterator[str]:
    yield "Containers:"
    if containers.runtime is None:
        yield f" Runtime: none ({containers.problem})"
    else:
        yield f" Runtime: {containers.runtime}" + (f", {containers.version}" if containers.version else "")
    writable = "" if containers.control_groups_writable else ", not for this user"
    yield f" Control groups: {containers.control_groups}{writable}"
    problem = containers.no_private_network
    yield " Private network: " + ("yes" if problem is None else f"no ({problem})")


def _registry(registry: api.RegistryInfo) -> Iterator[str]:
    if registry.logged_in is not None:
        yield f"logged in as {registry.logged_in}"
    if registry.reachable:
        yield "reachable"
    if registry.problem is not None:
        yield registry.problem.removeprefix(f"{registry.name} ")
