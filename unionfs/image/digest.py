"""`Digest`: the name of some bytes, "sha256:…" (image-spec descriptor.md), checked wherever one comes in.

A `Digest` is a `str`, so it compares with, and is written as, the text it came from. `Verifier` counts and hashes
bytes on their way and says whether they are what a descriptor promised. Nothing here knows files or JSON.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import AfterValidator, GetCoreSchemaHandler, StrictStr

from unionfs.errors import ImageFormatError

#: algorithm -> hexadecimal digits. The registered ones; sha256 is what everybody writes.
ALGORITHMS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
SHORT: Final = 12

_HEX: Final = re.compile(r"[0-9a-f]+")


class Digest(str):
    """`algorithm:hex`, valid by construction. ImageFormatError for anything else."""

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        algorithm, _, digits = text.partition(":")
        if ALGORITHMS.get(algorithm) != len(digits) or not _HEX.fullmatch(digits):
            raise ImageFormatError(f"not a digest: {text[:100]!r}")
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The twelve digits that docker shows."""
        return self.hex[:SHORT]

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        """The sha256 of `data`."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> Any:
        return AfterValidator(_validated).__get_pydantic_core_schema__(StrictStr, handler)


def _validated(text: str) -> Digest:
    """pydantic wants a ValueError."""
    try:
        return Digest(text)
    except ImageFormatError as error:
        raise ValueError(str(error)) from None


class Verifier:
    """Hashes and counts what is fed. `check` compares with what was promised."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self._hash = hashlib.new(algorithm)
        self._algorithm = algorithm
        self.size = 0

    def feed(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> Digest:
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def check(self, what: str, digest: Digest, size: int | None = None) -> None:
        """ImageFormatError where `what` is not of this size (None: any), or not what `digest` names."""
        if size is not None and size != self.size:
            raise ImageFormatError(f"{what} has {self.size} bytes, not {size}")
        if digest != self.digest:
            raise ImageFormatError(f"{what} is damaged: its digest is {self.digest}, not {digest}")


def chain_ids(diff_ids: Iterable[Digest]) -> list[Digest]:
    """The identity of each layer together with all below it (image-spec config.md, "Layer ChainID"), base first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
