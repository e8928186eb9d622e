"""Layers that can be fetched in parts, made member by member after their formats, and images of them.

    layer = estargz([Member("etc/motd", b"hello")])      blob, annotations, the tar in it
    layer = zstd_chunked([...])                          the same by zstd
    lazy_image("x/a/b:1", layer, …)                      the files of an OCI archive of them

Sources: stargz-snapshotter docs/estargz.md, containers/storage pkg/chunked. Nothing of the code under test is used but
for tar headers. `toc` changes the document before it is written: what hostile ones do.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.unit.image_rig import OCI, Blobs, Made, files_tar, made_image, named, sha256
from unionfs.changeset.tar_format import CHR, DIR, FIFO, LINK, REG, SYMLINK, TRAILER, Fields, member, padding

_TYPES = {DIR: "dir", REG: "reg", SYMLINK: "symlink", LINK: "hardlink", CHR: "char", FIFO: "fifo"}
Change = Callable[[dict[str, Any]], Any]


@dataclass
class Member:
    name: str
    data: bytes = b""
    type: bytes = REG
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def header(self) -> bytes:
        fields = Fields(
            self.name.encode(), self.type, self.mode, self.uid, size=len(self.data), linkname=self.link.encode(),
            mtime_ns=1_600_000_000_000_000_000,
        )  # fmt: skip
        return member(fields, {name.encode(): value for name, value in self.xattrs.items()})

    def entry(self) -> dict[str, Any]:
        """What the TOC says of it, but for where its data is."""
        told: dict[str, Any] = {
            "name": self.name + ("/" if self.type == DIR else ""),
            "type": _TYPES[self.type],
            "mode": self.mode,
            "uid": self.uid,
            "modtime": "2020-09-13T12:26:40Z",
        }
        if self.link:
            told["linkName"] = self.link
        if self.xattrs:
            told["xattrs"] = {name: base64.b64encode(value).decode() for name, value in self.xattrs.items()}
        return told


@dataclass
class LazyLayer:
    blob: bytes
    media_type: str
    annotations: dict[str, str]
    tar: bytes
    toc: dict[str, Any]

    def place(self, name: str, number: int = 0) -> int:
        """Where the chunk `number` of a file begins in the blob."""
        entries = self.toc["entries"]
        at = next(at for at, entry in enumerate(entries) if entry["name"] == name)
        return int(entries[at + number]["offset"])


def _same(document: dict[str, Any]) -> dict[str, Any]:
    return document


def estargz(
    members: Sequence[Member], *, chunk: int = 4 << 20, prefetched: int | None = None, toc: Change = _same
) -> LazyLayer:
    """`prefetched`: how many members come before the landmark; None: there is the one that says that none do."""
    landmark = Member(".no.prefetch.landmark" if prefetched is None else ".prefetch.landmark", b"\x0f")
    listed = [*members]
    listed.insert(prefetched or 0, landmark)
    out, tar, entries = bytearray(), bytearray(), []
    pending = bytearray()  # what stands between two files' data

    def flush() -> None:
        if pending:
            out.extend(_gz(bytes(pending)))
            tar.extend(pending)
            pending.clear()

    for one in listed:
        pending += one.header
        entry = one.entry()
        entries.append(entry)
        if not one.data:
            continue
        flush()
        entry |= {"size": len(one.data), "digest": sha256(one.data)}
        pieces = [one.data[at : at + chunk] for at in range(0, len(one.data), chunk)]
        for number, piece in enumerate(pieces):
            if number:
                entry = {"name": one.name, "type": "chunk", "chunkOffset": number * chunk}
                entries.append(entry)
            entry |= {"offset": len(out), "chunkDigest": sha256(piece)}
            if number < len(pieces) - 1:
                entry["chunkSize"] = len(piece)
            out += _gz(piece)
        tar += one.data
        pending += bytes(padding(len(one.data)))
    flush()
    document = {"version": 1, "entries": entries}
    changed = toc(json.loads(json.dumps(document)))
    data = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    last = Fields(b"stargz.index.json", REG, 0o444, size=len(data))
    whole = member(last) + data + bytes(padding(len(data))) + TRAILER
    begin = len(out)
    out += _gz(whole)
    out += _footer(begin)
    annotations = {"containerd.io/snapshot/stargz/toc.digest": sha256(data)}
    return LazyLayer(bytes(out), f"{OCI}layer.v1.tar+gzip", annotations, bytes(tar) + whole, document)


def _gz(data: bytes) -> bytes:
    return gzip.compress(data, 1 if len(data) < 1 << 20 else 0, mtime=0)  # what is large is noise


def _footer(offset: int) -> bytes:
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % offset
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
    return head + b"\x01\x00\x00\xff\xff" + struct.pack("<II", zlib.crc32(b""), 0)


def zstd_chunked(members: Sequence[Member], *, chunk: int = 64 << 10, toc: Change = _same) -> LazyLayer:
    from backports import zstd

    out, tar, entries = bytearray(), bytearray(), []
    pending = bytearray()
    for one in members:
        pending += one.header
        entry = one.entry()
        entries.append(entry)
        if not one.data:
            continue
        out += zstd.compress(bytes(pending))
        tar += pending
        entry |= {"size": len(one.data), "digest": sha256(one.data), "offset": len(out)}
        main = entry
        pieces = [one.data[at : at + chunk] for at in range(0, len(one.data), chunk)]
        for number, piece in enumerate(pieces if len(pieces) > 1 else []):
            if number:
                entry = {"type": "chunk", "name": one.name, "chunkOffset": number * chunk, "offset": len(out)}
                entries.append(entry)
            entry |= {"chunkSize": len(piece), "chunkDigest": sha256(piece)}
            if not piece.strip(b"\0"):
                entry["chunkType"] = "zeros"
            out += zstd.compress(piece)
        if len(pieces) == 1:
            out += zstd.compress(one.data)
        main["endOffset"] = len(out)
        tar += one.data
        pending = bytearray(padding(len(one.data)))
    pending += TRAILER
    out += zstd.compress(bytes(pending))
    tar += pending
    document = {"version": 1, "entries": entries}
    changed = toc(json.loads(json.dumps(document)))
    plain = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    data = zstd.compress(plain)
    position = len(out) + 8
    out += _skippable(data)
    footer = struct.pack("<QQQQQQQ", position, len(data), len(plain), 1, 0, 0, 0) + b"GNUlInUx"
    out += _skippable(footer)
    key = "io.github.containers.zstd-chunked.manifest-"
    annotations = {key + "checksum": sha256(data), key + "position": f"{position}:{len(data)}:{len(plain)}:1"}
    return LazyLayer(bytes(out), f"{OCI}layer.v1.tar+zstd", annotations, bytes(tar), document)


def with_another_toc(layer: LazyLayer, document: dict[str, Any]) -> tuple[LazyLayer, LazyLayer]:
    """One blob of zstd:chunked with two tables of contents, and two manifests' word for which one it is."""
    from backports import zstd

    data = zstd.compress(json.dumps(document).encode())
    blob = layer.blob + _skippable(data)
    key = "io.github.containers.zstd-chunked.manifest-"
    place = f"{len(layer.blob) + 8}:{len(data)}:{len(json.dumps(document))}:1"
    other = {key + "checksum": sha256(data), key + "position": place}
    return replace(layer, blob=blob), replace(layer, blob=blob, annotations=other, toc=document)


def _skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(data)) + data


def plain_layer(tar: bytes) -> LazyLayer:
    """One that cannot be fetched in parts."""
    return LazyLayer(_gz(tar), f"{OCI}layer.v1.tar+gzip", {}, tar, {})


def lazy_image(name: str, *layers: LazyLayer) -> tuple[Made, bytes]:
    """The image, and an OCI archive of it."""
    made = made_image(name, *(layer.tar for layer in layers))
    blobs = Blobs()
    descriptors = [
        blobs.add(layer.blob, layer.media_type, **({"annotations": layer.annotations} if layer.annotations else {}))
        for layer in layers
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}manifest.v1+json",
        "config": blobs.add(made.config, f"{OCI}config.v1+json"),
        "layers": descriptors,
    }
    descriptor = blobs.add(json.dumps(manifest).encode(), f"{OCI}manifest.v1+json")
    return made, files_tar(blobs.layout(named(descriptor, name)))
