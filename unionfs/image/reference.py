"""References: the names of images, as distribution/reference reads them.

    reference  = name [ ":" tag ] [ "@" digest ]            alpine, alpine:3.20, alpine@sha256:…
    name       = [ domain "/" ] path
    domain     = host [ ":" port ]                           localhost:5000, [::1], example.com
    path       = component { "/" component }
    component  = [a-z0-9]+ { ("." | "_" | "__" | "-"+) [a-z0-9]+ }
    tag        = [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
    digest     = algorithm ":" hex

A name has two forms. The *canonical* one always has a domain (`docker.io/library/alpine`); the *familiar* one, which
people read and write, leaves out what the default domain implies (`alpine`). `parse` takes a reference as it is
written, `parse_normalized` makes the canonical one of either form.

Messages are upstream's (reference.go, normalize.go, go-digest), since people know them. Nothing here looks anything up.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from unionfs.errors import ReferenceFormatError
from unionfs.image.digest import ALGORITHMS

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_PATH: Final = 255
#: Docker Hub's name before 2014, which still is in scripts.
_LEGACY_DOMAIN: Final = "index.docker.io"
_OFFICIAL: Final = "library/"
_LOCALHOST: Final = "localhost"

_HOST_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
#: IPv6 addresses in brackets, without zones (RFC 6874).
_HOST = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[a-fA-F0-9:]+\])"
_DOMAIN = rf"{_HOST}(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_is_reference = re.compile(rf"((?:{_DOMAIN}/)?{_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?").fullmatch
_split_name = re.compile(rf"(?:({_DOMAIN})/)?({_PATH})").fullmatch
_is_identifier = re.compile(r"[a-f0-9]{64}").fullmatch


class Reference(NamedTuple):
    """A parsed reference. `domain` is "" where the text had none, `tag` and `digest` None likewise."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Domain and path: the repository."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def familiar_name(self) -> str:
        """The repository as people write it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        # "library/a/b" is nobody's official image, and stays.
        short = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in short else short

    @property
    def name_only(self) -> bool:
        return self.tag is None and self.digest is None

    def __str__(self) -> str:
        return self.name + self._suffix()

    def familiar(self) -> str:
        """The whole reference as people write it."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> Reference:
        """`latest`, if there is neither tag nor digest."""
        return self._replace(tag=DEFAULT_TAG) if self.name_only else self

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag is not None else "") + (f"@{self.digest}" if self.digest is not None else "")


def parse(text: str) -> Reference:
    """A reference as it is written; what looks like a domain is one. ReferenceFormatError with upstream's message."""
    if not text:
        raise ReferenceFormatError("repository name must have at least one component")
    found = _is_reference(text)
    if found is None:
        if _is_reference(text.lower()) is not None:
            raise ReferenceFormatError("repository name must be lowercase")
        raise ReferenceFormatError("invalid reference format", hint="a name is [DOMAIN/]PATH[:TAG][@DIGEST]")
    name, tag, digest = found.groups()
    split = _split_name(name)
    assert split is not None  # the pattern contains this one
    domain, path = split.groups()
    if len(path) > MAX_PATH:
        raise ReferenceFormatError(f"repository name must not be more than {MAX_PATH} characters")
    if digest is not None:
        check_digest(digest)
    return Reference(domain or "", path, tag, digest)


def parse_normalized(text: str) -> Reference:
    """The canonical reference of a familiar or canonical one (ParseNormalizedNamed). ReferenceFormatError as above."""
    if _is_identifier(text):
        raise ReferenceFormatError(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings", hint="that is an image ID"
        )
    domain, rest = _split_domain(text)
    path = rest.partition(":")[0]
    if path.lower() != path:
        raise ReferenceFormatError(
            f"invalid reference format: repository name ({path}) must be lowercase", hint=f"try {text.lower()}"
        )
    return parse(f"{domain}/{rest}")


def new_name(text: str) -> str:
    """The familiar form, with a tag, of a name that an image is to get. ReferenceFormatError for none, for one with a
    digest, and for one that reads as a digest (moby reference/store.go addReference)."""
    wanted = parse_normalized(text)
    if wanted.digest is not None:
        raise ReferenceFormatError(
            "refusing to create a tag with a digest reference", hint="give NAME[:TAG], without a digest"
        )
    if wanted.familiar_name in ALGORITHMS:
        raise ReferenceFormatError(
            "refusing to create an ambiguous tag using digest algorithm as name", hint="choose another name"
        )
    return wanted.with_default_tag().familiar()


def check_digest(text: str) -> None:
    """ReferenceFormatError unless it is a digest of an algorithm that OCI registers, in lower case (go-digest)."""
    algorithm, colon, encoded = text.partition(":")
    if not algorithm or not colon or not encoded:
        raise ReferenceFormatError("invalid checksum digest format")
    if algorithm not in ALGORITHMS:
        if re.fullmatch(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", text):
            raise ReferenceFormatError("unsupported digest algorithm", hint=f"one of {', '.join(ALGORITHMS)}")
        raise ReferenceFormatError("invalid checksum digest format")
    if len(encoded) != ALGORITHMS[algorithm]:
        raise ReferenceFormatError("invalid checksum digest length")
    if not re.fullmatch("[a-f0-9]+", encoded):
        raise ReferenceFormatError("invalid checksum digest format")


def _split_domain(text: str) -> tuple[str, str]:
    """(domain, remainder), by splitDockerDomain: a first component is a domain if it could be nothing else."""
    first, slash, rest = text.partition("/")
    if not slash:
        # "localhost" and "example.com" alone are names too, as upstream has them.
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    elif first == _LOCALHOST or "." in first or ":" in first or first.lower() != first:
        domain = first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = _OFFICIAL + rest
    return domain, rest
