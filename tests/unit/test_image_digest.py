"""Digests: what is one, what bytes have, and chains of them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unionfs.errors import ImageFormatError
from unionfs.image.digest import ALGORITHMS, Digest, Verifier, chain_ids


@given(st.sampled_from(sorted(ALGORITHMS)), st.binary())
def test_a_digest_is_the_text_that_names_the_bytes(algorithm: str, data: bytes) -> None:
    text = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    digest = Digest(text)
    assert digest == text and str(digest) == text
    assert (digest.algorithm, digest.hex) == tuple(text.split(":"))
    assert digest.short == text.split(":")[1][:12]
    verifier = Verifier(algorithm)
    for at in range(0, len(data), 3):
        verifier.feed(data[at : at + 3])
    assert (verifier.digest, verifier.size) == (digest, len(data))
    verifier.check("it", digest, len(data))


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ImageFormatError, match="not a digest"):
        Digest(text)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "sha256:", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "sha512:" + "0" * 64,
        "md5:" + "0" * 32, "0" * 64, "sha256:" + "0" * 62 + "\n0", "sha256:" + "0" * 63 + "\n", " sha256:" + "0" * 64,
        "sha256:" + "../" * 21 + "0", "sha256:" + "٣" * 64,
    ],
)  # fmt: skip
def test_what_looks_like_one(text: str) -> None:
    with pytest.raises(ImageFormatError):
        Digest(text)


@given(st.binary(min_size=1), st.integers(min_value=0))
def test_bytes_that_changed_are_found_out(data: bytes, at: int) -> None:
    at %= len(data)
    other = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
    verifier = Verifier()
    verifier.feed(other)
    with pytest.raises(ImageFormatError, match="the blob is damaged: its digest is"):
        verifier.check("the blob", Digest.of(data), len(data))
    with pytest.raises(ImageFormatError, match=f"the blob has {len(data)} bytes, not {len(data) + 1}"):
        verifier.check("the blob", Digest.of(data), len(data) + 1)


def test_chain_ids_of_the_specification() -> None:
    """image-spec config.md: ChainID(L0) = DiffID(L0), ChainID(L0|…|Ln) = Digest(ChainID(L0|…|Ln-1) " " DiffID(Ln))"""
    one, two, three = (Digest.of(word) for word in (b"one", b"two", b"three"))
    second = Digest.of(f"{one} {two}".encode())
    assert chain_ids([]) == []
    assert chain_ids([one, two, three]) == [one, second, Digest.of(f"{second} {three}".encode())]
