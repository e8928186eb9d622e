"""The JSON of `unionfs info --json`; see schemas.py."""

from __future__ import annotations

import os

from pydantic import Field

from unionfs import api

from .schemas import Model, Name


class FileSystem(Model):
    type: str = Field(description="as in /proc/self/mountinfo")
    free: int = Field(description="bytes")
    abilities: dict[str, str | None] = Field(description="by name what there is; null: lacking")
    lacks: dict[str, str] = Field(description="of what is lacking, what the kernel said")


class Store(Model):
    directory: Name
    images: int
    size: int = Field(description="bytes on disk")
    cache: Name
    cache_size: int
    file_system: FileSystem


class Transport(Model):
    name: str | None = Field(description="what --transport auto is; null: none works")
    fuse: str | None = Field(description="the kernel's protocol")
    passthrough: bool
    features: list[str]
    missing: dict[str, str] = Field(description="each with how it is done without")
    problem: str | None


class Containers(Model):
    runtime: str | None
    version: str | None
    problem: str | None
    control_groups: str
    control_groups_writable: bool
    no_private_network: str | None = Field(description="why there is none; null: there is one")


class Registry(Model):
    name: str
    logged_in: str | None = Field(description="as whom")
    reachable: bool | None = Field(description="null: not asked")
    problem: str | None


class Information(Model):
    """`unionfs info --json`."""

    version: str
    python: str
    kernel: str
    user: int
    store: Store
    transport: Transport
    containers: Containers
    registries: list[Registry]
    mounts: dict[str, int] = Field(description="by state")

    @classmethod
    def of(cls, found: api.Information) -> Information:
        store = found.store._asdict() | {
            "directory": os.fsdecode(found.store.directory),
            "cache": os.fsdecode(found.store.cache),
            "file_system": found.store.file_system._asdict(),
        }
        return cls.model_validate(
            found._asdict()
            | {
                "store": store,
                "transport": found.transport._asdict(),
                "containers": found.containers._asdict(),
                "registries": [one._asdict() for one in found.registries],
            }
        )
