"""What the image tests share: images made byte by byte, and archives of them as docker, podman and others write them.

    image = made_image("busybox:1", layer(motd="hi"), layer(etc__passwd="root"))
    old_docker([image])  podman([image])  new_docker([image])  oci([image])      archives, as bytes

Nothing here uses the code under test but for the tar headers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.golden.hostile_tars import archive, entry
from unionfs.changeset.tar_format import DIR, REG, SYMLINK
from unionfs.image.layer_cache import LayerCache
from unionfs.image.results import InUse
from unionfs.image.store import Store

OCI = "application/vnd.oci.image."


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hex_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def layer(**files: str | bytes) -> bytes:
    """A layer tar; "__" in a name is "/"."""
    members = []
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        members.append(entry(name.replace("__", "/").encode(), REG, data))
    return archive(*members)


@dataclass
class Made:
    """An image: its config's bytes, its layers' tars (base first), what they are called."""

    config: bytes
    layers: Sequence[bytes]
    tags: Sequence[str] = ()

    @property
    def id(self) -> str:
        return sha256(self.config)

    @property
    def diff_ids(self) -> list[str]:
        return [sha256(tar) for tar in self.layers]


def made_image(tags: str, *layers: bytes, **fields: Any) -> Made:
    """`tags` separated by spaces. `fields` go into the config, which has one step of history per layer."""
    config = {
        "created": "2024-05-06T07:08:09.123456789Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"made": "by hand"}},
        "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in layers]},
        "history": [
            {"created": "2024-05-06T07:08:09Z", "created_by": f"ADD {number}"} for number in range(len(layers))
        ],
    }
    return Made(as_json(config | fields), layers, tags.split())


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# docker's archives ----------------------------------------------------------------------------------------------------
def files_tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A tar of files and symbolic links, directories before what is in them, in the order given."""
    members: list[bytes] = []
    there: set[str] = set()
    for name in (*files, *(links or {})):
        for depth in range(1, name.count("/") + 1):
            directory = "/".join(name.split("/")[:depth])
            if directory not in there:
                there.add(directory)
                members.append(entry(directory.encode(), DIR, mode=0o755))
        if name in files:
            members.append(entry(name.encode(), REG, files[name]))
        elif links:
            members.append(entry(name.encode(), SYMLINK, linkname=links[name].encode()))
    return archive(*members)


def old_docker(images: Sequence[Made]) -> bytes:
    """docker < 25: <v1id>/{VERSION,json,layer.tar}, a repeated layer a symbolic link to the first, <config>.json,
    manifest.json and repositories at the end."""
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    first: dict[str, str] = {}
    manifest: list[Any] = []
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        paths, parent = [], ""
        for tar in image.layers:
            v1 = hex_of(f"{image.id} {parent} {sha256(tar)}".encode())
            files[f"{v1}/VERSION"] = b"1.0"
            files[f"{v1}/json"] = as_json({"id": v1} | ({"parent": parent} if parent else {}))
            path = f"{v1}/layer.tar"
            if sha256(tar) in first:
                links[path] = f"../{first[sha256(tar)]}/layer.tar"
            else:
                files[path] = tar
                first[sha256(tar)] = v1
            paths.append(path)
            parent = v1
        files[hex_of(image.config) + ".json"] = image.config
        manifest.append(
            {"Config": hex_of(image.config) + ".json", "RepoTags": list(image.tags) or None, "Layers": paths}
        )
        for name in image.tags:
            repositories.setdefault(name.rpartition(":")[0], {})[name.rpartition(":")[2]] = parent
    files["manifest.json"] = as_json(manifest)
    files["repositories"] = as_json(repositories)
    return files_tar(files, links)


def podman(images: Sequence[Made]) -> bytes:
    """podman and skopeo: <diffid>.tar, <v1id>/layer.tar as a link to it, names in full."""
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    manifest = []
    for image in images:
        for tar in image.layers:
            v1 = hex_of(b"v1" + tar)
            files[f"{hex_of(tar)}.tar"] = tar
            links[f"{v1}/layer.tar"] = f"../{hex_of(tar)}.tar"
            files[f"{v1}/VERSION"] = b"1.0"
            files[f"{v1}/json"] = b"{}"
        files[f"{hex_of(image.config)}.json"] = image.config
        tags = [f"docker.io/library/{name}" if "/" not in name else name for name in image.tags]
        layers = [f"{hex_of(tar)}.tar" for tar in image.layers]
        manifest.append({"Config": f"{hex_of(image.config)}.json", "RepoTags": tags, "Layers": layers})
    files["manifest.json"] = as_json(manifest)
    return files_tar(files, links)


@dataclass
class Blobs:
    """The files of an OCI layout in the making."""

    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        self.files[f"blobs/sha256/{hex_of(data)}"] = data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}

    def image(self, image: Made, compression: str = "") -> dict[str, Any]:
        """The descriptor of its manifest."""
        layers = []
        for tar in image.layers:
            data = gzip.compress(tar, mtime=0) if compression == "gzip" else tar
            kind = f"{OCI}layer.v1.tar" + (f"+{compression}" if compression else "")
            layers.append(self.add(data, kind))
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": self.add(image.config, f"{OCI}config.v1+json"),
            "layers": layers,
        }
        return self.add(as_json(manifest), f"{OCI}manifest.v1+json")

    def index(self, *descriptors: Mapping[str, Any]) -> dict[str, Any]:
        return self.add(index_json(*descriptors), f"{OCI}index.v1+json")

    def layout(self, *descriptors: Mapping[str, Any]) -> dict[str, bytes]:
        """All files, with this index.json."""
        return {
            **self.files,
            "index.json": index_json(*descriptors),
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        }


def index_json(*descriptors: Mapping[str, Any]) -> bytes:
    return as_json({"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": list(descriptors)})


def named(descriptor: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}


def oci_files(images: Sequence[Made], compression: str = "gzip") -> dict[str, bytes]:
    blobs = Blobs()
    descriptors: list[Mapping[str, Any]] = []
    for image in images:
        descriptor = blobs.image(image, compression)
        descriptors += [named(descriptor, name) for name in image.tags] or [descriptor]
    return blobs.layout(*descriptors)


def oci(images: Sequence[Made], compression: str = "gzip") -> bytes:
    """An OCI archive whose names stand in index.json in full."""
    return files_tar(oci_files(images, compression))


def new_docker(images: Sequence[Made], compression: str = "") -> bytes:
    """docker >= 25: an OCI layout with manifest.json; the tag and the full name as annotations. Uncompressed layers are
    of its old store, compressed ones of containerd's."""
    blobs = Blobs()
    descriptors: list[Mapping[str, Any]] = []
    manifest = []
    for image in images:
        descriptor = blobs.image(image, compression)
        for name in image.tags:
            full = name if "/" in name else f"docker.io/library/{name}"
            tag = name.rpartition(":")[2]
            annotations = {"io.containerd.image.name": full, "org.opencontainers.image.ref.name": tag}
            descriptors.append({**descriptor, "annotations": annotations})
        if not image.tags:
            descriptors.append(descriptor)
        document = json.loads(blobs.files[f"blobs/sha256/{descriptor['digest'][7:]}"])
        paths = [f"blobs/sha256/{one['digest'][7:]}" for one in document["layers"]]
        config = f"blobs/sha256/{hex_of(image.config)}"
        manifest.append({"Config": config, "RepoTags": list(image.tags) or None, "Layers": paths})
    files = blobs.layout(*descriptors)
    files["manifest.json"] = as_json(manifest)
    return files_tar(dict(sorted(files.items())))


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


# stores ---------------------------------------------------------------------------------------------------------------
def open_store(tmp_path: Path, name: str = "store", in_use: InUse = dict) -> Store:
    """A store below `tmp_path` with a cache of its own beside it."""
    return Store(tmp_path / name, cache=LayerCache(str(tmp_path / f"{name}.cache")), in_use=in_use)


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory in memory, where it can be, for what syncs every step of many."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="unionfs-test-") as name:
        yield Path(name)


def listing(store: Store) -> dict[str, bytes]:
    """Every file of a store and its cache, with what is in it; and every directory. Locks are left out."""
    return dict(_walk(Path(store.directory.decode()))) | dict(_walk(Path(store.cache.root.decode())))


def _walk(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.parent.name == ".unionfs" and path.is_file():
            continue
        yield str(path), path.read_bytes() if path.is_file() else b"a directory"


def names(store: Store) -> list[str]:
    return sorted(name for image in store.images() for name in image.names)
