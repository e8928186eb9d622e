"""`Repository`: manifests and blobs of one repository (distribution-spec, end-2 to end-11).

What is read is compared with its digest here, but for blobs that are streamed (`Download`), which their reader hashes.
"""

from __future__ import annotations

from typing import Final

import httpx2

from unionfs.errors import ImageFormatError
from unionfs.image import mediatypes
from unionfs.image.digest import Digest, Verifier
from unionfs.image.layers import descriptor_of
from unionfs.image.models import MAX_MANIFEST, Descriptor
from unionfs.image.reference import Reference
from unionfs.image.registry.client import Client
from unionfs.image.registry.download import Download
from unionfs.image.registry.failures import Doing

_ACCEPT: Final = {"Accept": ", ".join((*sorted(mediatypes.INDEXES), *sorted(mediatypes.MANIFESTS)))}
#: What a HEAD may be answered and a GET is then asked for: it says more.
_ASK: Final = (200, 400, 401, 403, 404, 405, 501)


class Repository:
    """The repository of `reference` (canonical) at its registry. `action`: "pull" or "push", for messages."""

    def __init__(self, client: Client, reference: Reference, action: str) -> None:
        self.client, self.reference, self._action = client, reference, action
        self._root = f"/v2/{reference.path}"
        self.scope = f"repository:{reference.path}:" + ("pull" if action == "pull" else "pull,push")

    @property
    def path(self) -> str:
        return self.reference.path

    def doing(self, thing: str) -> Doing:
        return Doing(thing, self._action, self.reference.familiar_name)

    def url(self, path: str) -> str:
        """Of something in the repository, as "blobs/uploads/"."""
        return f"{self._root}/{path}"

    # manifests ------------------------------------------------------------------------------------------------------
    def resolve(self, tag: str) -> tuple[Descriptor, bytes | None]:
        """What a tag or digest means now; and the manifest's bytes, where these had to be asked for. Of a digest it is
        that digest, whatever the registry says."""
        what = self.doing(f"manifest for {self.reference.familiar()}")
        url = self.url(f"manifests/{tag}")
        asked = Digest(tag) if ":" in tag else None
        answer = self.client.request(what, "HEAD", url, scopes=(self.scope,), headers=_ACCEPT, expect=_ASK)
        kind, told, length = _told(answer.headers)
        if answer.status == 200:
            _refuse_old(what, kind)
            if told and length:
                return descriptor_of(kind, asked or told, length), None
        answer = self.client.request(what, "GET", url, scopes=(self.scope,), headers=_ACCEPT, limit=MAX_MANIFEST)
        kind, told, _ = _told(answer.headers)
        _refuse_old(what, kind)
        found = descriptor_of(kind, asked or told or Digest.of(answer.body), len(answer.body))
        _compare(answer.body, what.thing, found)
        return found, answer.body

    def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest or index by its digest."""
        what = self.doing(f"manifest {descriptor.digest} of {self.reference.familiar_name}")
        if descriptor.size > MAX_MANIFEST:
            raise ImageFormatError(f"{what.thing} has {descriptor.size} bytes; more than {MAX_MANIFEST} are refused")
        answer = self.client.request(
            what,
            "GET",
            self.url(f"manifests/{descriptor.digest}"),
            scopes=(self.scope,),
            headers=_ACCEPT,
            limit=MAX_MANIFEST,
        )
        _compare(answer.body, what.thing, descriptor)
        return answer.body

    def has_manifest(self, digest: Digest) -> bool:
        what = self.doing(f"manifest {digest}")
        url = self.url(f"manifests/{digest}")
        answer = self.client.request(what, "HEAD", url, scopes=(self.scope,), headers=_ACCEPT, expect=(200, 404))
        return answer.status == 200

    def put_manifest(self, data: bytes, media_type: str, tag: str) -> None:
        """Idempotent. Everything that it names must be there."""
        what = self.doing(f"manifest {tag} of {self.reference.familiar_name}")
        self.client.request(
            what,
            "PUT",
            self.url(f"manifests/{tag}"),
            scopes=(self.scope,),
            headers={"Content-Type": media_type},
            body=data,
            expect=(200, 201, 202),
        )

    # blobs ----------------------------------------------------------------------------------------------------------
    def has_blob(self, digest: Digest) -> bool:
        what = self.doing(f"blob {digest}")
        url = self.url(f"blobs/{digest}")
        answer = self.client.request(what, "HEAD", url, scopes=(self.scope,), expect=(200, 404))
        return answer.status == 200

    def download(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> Download:
        """The bytes of a blob, or of a part of it, which nobody has compared yet."""
        what, url = self.doing(f"blob {blob.digest}"), self.url(f"blobs/{blob.digest}")
        return Download(self.client, what, url, self.scope, blob, start, stop)

    def document(self, blob: Descriptor, limit: int) -> bytes:
        """A small blob: a config."""
        what = f"the blob {blob.digest}"
        if blob.size > limit:
            raise ImageFormatError(f"{what} has {blob.size} bytes; more than {limit} are refused")
        with self.download(blob) as stream:
            data = stream.read_all()
        _compare(data, what, blob)
        return data


def _told(headers: httpx2.Headers) -> tuple[str, Digest | None, int]:
    """Media type, digest and size of a manifest, as far as an answer says: "", None and 0 where it does not."""
    kind = headers.get("content-type", "").partition(";")[0].strip()
    length = headers.get("content-length", "")
    try:
        digest = Digest(headers.get("docker-content-digest", ""))
    except ImageFormatError:
        digest = None
    return kind, digest, int(length) if length.isascii() and length.isdigit() else 0


def _refuse_old(what: Doing, kind: str) -> None:
    if kind in mediatypes.SCHEMA_1:
        raise ImageFormatError(
            f"{what.thing} is of schema 1, which is not read", hint="push it again, with a docker newer than 1.10"
        )


def _compare(data: bytes, what: str, descriptor: Descriptor) -> None:
    verifier = Verifier(descriptor.digest.algorithm)
    verifier.feed(data)
    verifier.check(what, descriptor.digest, descriptor.size)
