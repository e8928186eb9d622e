"""The JSON documents of images, parsed: descriptors, manifests, indexes, configs (OCI and docker), docker's
`manifest.json`.

`parse` is the one door for JSON of unknown origin: bounded in size and depth, no key twice in one object, no number
that JSON has not; then pydantic checks the fields that are used here. Unknown fields are kept (`model_extra`), null
stands for an empty list or mapping as Go writes it. A model is a view of the bytes, for reading: digests are taken
from the bytes, and nothing is made by writing a model back, but for documents that are new.

Sources: image-spec 1.1 (descriptor.md, manifest.md, image-index.md, config.md), distribution's manifest v2 schema 2,
moby image/spec/v1.2 and image/tarexport.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, StrictStr, ValidationError

from unionfs.errors import ImageFormatError
from unionfs.image import mediatypes
from unionfs.image.digest import Digest

#: Bytes. As distribution and containers/image bound manifests; a config may carry a long history.
MAX_MANIFEST: Final = 4 << 20
MAX_CONFIG: Final = 16 << 20
MAX_DEPTH: Final = 64

#: Strings (one that does not end is all of the rest), and brackets. Possessive, so that no byte is looked at twice.
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_MAX_SIZE: Final = (1 << 63) - 1


def parse_json(data: bytes, what: str, limit: int = MAX_MANIFEST) -> Any:
    """The value of a JSON text. ImageFormatError, naming `what`, for all that is wrong with it."""
    if len(data) > limit:
        raise ImageFormatError(f"{what} has {len(data)} bytes; more than {limit} are refused")
    depth = 0
    for token in _TOKEN.finditer(data):
        first = token[0][:1]
        depth += first in b"[{"
        depth -= first in b"]}"
        if depth > MAX_DEPTH:
            raise ImageFormatError(f"{what} is nested more than {MAX_DEPTH} deep")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        return value
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError and a JSONDecodeError are ValueErrors
        raise ImageFormatError(f"{what} is not JSON: {error}") from None


def encode_json(value: Any) -> bytes:
    """A new document: compact, and the same bytes for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:100]!r} stands twice in one object")
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _none_is(empty: type[Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: empty() if value is None else value)


Count = Annotated[int, Strict(), Field(ge=0, le=_MAX_SIZE)]
Texts = Annotated[list[StrictStr], _none_is(list)]
TextMap = Annotated[dict[StrictStr, StrictStr], _none_is(dict)]
#: A set, as Go writes one: the keys count.
Keys = Annotated[dict[StrictStr, Any], _none_is(dict)]
Text = Annotated[StrictStr, _none_is(str)]


class Document(BaseModel):
    """What all of them are: frozen, keeping what they do not know, with the names of the JSON as aliases."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    @classmethod
    def parse(cls, data: bytes, what: str, limit: int = MAX_MANIFEST) -> Self:
        """The document in `data`. ImageFormatError, naming `what` and the field."""
        return cls.of(parse_json(data, what, limit), what)

    @classmethod
    def of(cls, value: Any, what: str) -> Self:
        """The document in a parsed JSON value."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ImageFormatError(f"{what}: {where + ': ' if where else ''}{first['msg']}") from None

    def encode(self) -> bytes:
        """A new document's bytes: compact, absent where unset. Never for one that was parsed."""
        return encode_json(self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True))


class Platform(Document):
    """What an image runs on. `variant` "" where there is none."""

    os: Text = ""
    architecture: Text = ""
    variant: Text = ""
    os_version: Text = Field("", alias="os.version")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(Document):
    """A reference to bytes: what they are, their digest, their size."""

    media_type: Text = Field("", alias="mediaType")
    digest: Digest
    size: Count
    annotations: TextMap = Field(default_factory=dict)
    platform: Platform | None = None
    urls: Texts = Field(default_factory=list)
    artifact_type: Text = Field("", alias="artifactType")

    def bare(self) -> dict[str, Any]:
        """The JSON of a reference to the same bytes that says nothing else."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


class Index(Document):
    """An image index, or docker's manifest list."""

    schema_version: Annotated[int, Strict(), Field(ge=2, le=2)] = Field(alias="schemaVersion")
    media_type: Text = Field("", alias="mediaType")
    manifests: Annotated[list[Descriptor], _none_is(list)]
    annotations: TextMap = Field(default_factory=dict)


class Manifest(Document):
    """An image manifest, or docker's schema 2 (same fields)."""

    schema_version: Annotated[int, Strict(), Field(ge=2, le=2)] = Field(alias="schemaVersion")
    media_type: Text = Field("", alias="mediaType")
    config: Descriptor
    layers: Annotated[list[Descriptor], _none_is(list)]
    annotations: TextMap = Field(default_factory=dict)
    artifact_type: Text = Field("", alias="artifactType")


class Healthcheck(Document):
    """Times are in nanoseconds."""

    test: Texts = Field(default_factory=list, alias="Test")


class RunConfig(Document):
    """How a container of the image is run (config.md, "config"; docker has more)."""

    user: Text = Field("", alias="User")
    exposed_ports: Keys = Field(default_factory=dict, alias="ExposedPorts")
    env: Texts = Field(default_factory=list, alias="Env")
    entrypoint: Texts | None = Field(None, alias="Entrypoint")
    cmd: Texts | None = Field(None, alias="Cmd")
    volumes: Keys = Field(default_factory=dict, alias="Volumes")
    working_dir: Text = Field("", alias="WorkingDir")
    labels: TextMap = Field(default_factory=dict, alias="Labels")
    stop_signal: Text = Field("", alias="StopSignal")
    on_build: Texts = Field(default_factory=list, alias="OnBuild")
    healthcheck: Healthcheck | None = Field(None, alias="Healthcheck")


class History(Document):
    """How one layer came to be; `empty_layer`: there is none for this step."""

    created: StrictStr | None = None
    created_by: Text = ""
    author: Text = ""
    comment: Text = ""
    empty_layer: Annotated[bool, Strict()] = False


class RootFS(Document):
    type: Text = "layers"
    diff_ids: Annotated[list[Digest], _none_is(list)]


class ImageConfig(Document):
    """An image's configuration (config.md), docker's fields included. The ImageID is the digest of its bytes.

    Times stay text: they have nanoseconds and offsets that are nobody's business here but `timestamp`'s."""

    created: StrictStr | None = None
    author: Text = ""
    architecture: Text = ""
    variant: Text = ""
    os: Text = ""
    os_version: Text = Field("", alias="os.version")
    config: Annotated[RunConfig, _none_is(dict)] = RunConfig.model_validate({})
    rootfs: RootFS
    history: Annotated[list[History], _none_is(list)] = Field(default_factory=list)
    comment: Text = ""
    docker_version: Text = ""

    @property
    def platform(self) -> Platform:
        told = {"os": self.os, "architecture": self.architecture, "variant": self.variant}
        return Platform.model_validate(told | ({"os.version": self.os_version} if self.os_version else {}))


class ArchiveEntry(Document):
    """One image of docker's `manifest.json`: paths within the archive; `layers` base first."""

    config: StrictStr = Field(alias="Config")
    repo_tags: Texts = Field(default_factory=list, alias="RepoTags")
    layers: Texts = Field(alias="Layers")


_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")


def timestamp(text: str | None) -> datetime | None:
    """A time of a config (RFC 3339), to microseconds, in UTC; None for none, for nonsense, and for Go's zero time."""
    found = _TIME.fullmatch(text or "")
    if found is None:
        return None
    seconds, fraction, zone = found.groups()
    try:
        when = datetime.fromisoformat(seconds.upper() + ("+00:00" if zone in "Zz" else zone))
        when = when.replace(microsecond=int((fraction or "0").ljust(9, "0")) // 1000).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return when if when.year > 1 else None


def parse_manifest(data: bytes, what: str, media_type: str = "") -> Index | Manifest:
    """A manifest or index. `media_type`: what its descriptor says of it, "" if nothing.

    ImageFormatError where it says to be something else, or could be read as either (CVE-2021-41190).
    """
    value = parse_json(data, what)
    if not isinstance(value, dict):
        raise ImageFormatError(f"{what} is not a JSON object")
    own = value.get("mediaType") or ""
    if not isinstance(own, str):
        raise ImageFormatError(f"{what} has a media type that is no text")
    if "manifests" in value and ("layers" in value or "config" in value):
        raise ImageFormatError(f"{what} is both a manifest and an index")
    if own and media_type and own != media_type:
        raise ImageFormatError(f"{what} has the media type {own[:100]!r}, its descriptor says {media_type!r}")
    kind = own or media_type
    if kind in mediatypes.INDEXES or (not kind and "manifests" in value):
        return Index.of(value, what)
    if kind in mediatypes.MANIFESTS or (not kind and "layers" in value):
        return Manifest.of(value, what)
    raise ImageFormatError(f"{what} is neither an image manifest nor an index: {kind[:100]!r}")
