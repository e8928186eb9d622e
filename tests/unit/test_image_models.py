"""The JSON documents: kept as they are, refused where they are not what they should be, and by no other error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.image_rig import OCI, as_json
from unionfs.errors import ImageFormatError
from unionfs.image import mediatypes
from unionfs.image.models import (
    MAX_DEPTH,
    ArchiveEntry,
    Descriptor,
    Document,
    ImageConfig,
    Index,
    Manifest,
    parse_json,
    parse_manifest,
    timestamp,
)

DIGEST = "sha256:" + "0" * 64
DESCRIPTOR = {"mediaType": f"{OCI}config.v1+json", "digest": DIGEST, "size": 2}
MANIFEST = {"schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "config": DESCRIPTOR, "layers": [DESCRIPTOR]}
INDEX = {"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": [DESCRIPTOR]}
CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value).encode(), "it") == value


@given(st.binary())
def test_what_is_no_json_is_refused_by_our_own_error(data: bytes) -> None:
    try:
        value = parse_json(data, "the document")
    except ImageFormatError as error:
        assert str(error).startswith("the document ")
    else:
        assert value == json.loads(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":2}', "the key 'a' stands twice in one object"),
        (b'[{"x":{"b":1,"b":1}}]', "the key 'b' stands twice"),
        (b'{"a":NaN}', "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b'{"a":"\xff"}', "is not JSON"),
        (b'{"a":"\\ud800"}', "surrogates not allowed"),
        (b"{} {}", "is not JSON: Extra data"),
        (b"", "is not JSON"),
        (b"[" * 100_000, f"nested more than {MAX_DEPTH} deep"),
        (b'{"a":' * 100_000, f"nested more than {MAX_DEPTH} deep"),
        (b"1" * 5000, "is not JSON"),
        (b'"' + b"x" * (4 << 20) + b'"', "more than 4194304 are refused"),
    ],
)
def test_json_that_is_hostile_is_named(data: bytes, why: str) -> None:
    with pytest.raises(ImageFormatError, match=why):
        parse_json(data, "it")


def test_brackets_in_strings_are_no_depth() -> None:
    value = ["[" * 1000, '"[' * 1000, "\\" * 3 + "{" * 1000]
    assert parse_json(json.dumps(value).encode(), "it") == value


@pytest.mark.parametrize(
    ("model", "value"),
    [(Descriptor, DESCRIPTOR), (Manifest, MANIFEST), (Index, INDEX), (ImageConfig, CONFIG)],
    ids=lambda item: item.__name__ if isinstance(item, type) else "",
)
@given(extra=st.dictionaries(st.text(min_size=1).map(lambda key: f"x-{key}"), json_values, max_size=3))
def test_unknown_fields_are_kept(model: type[Document], value: dict[str, Any], extra: dict[str, Any]) -> None:
    document = model.parse(as_json(value | extra), "it")
    assert document.model_extra == extra
    assert json.loads(document.encode()) == value | {key: item for key, item in extra.items() if item is not None}


@given(st.sampled_from([Descriptor, Manifest, Index, ImageConfig, ArchiveEntry]), json_values)
def test_any_value_is_a_document_or_our_own_error(model: type[Document], value: Any) -> None:
    try:
        model.of(value, "it")
    except ImageFormatError as error:
        assert str(error).startswith("it: ")


@given(st.sampled_from([MANIFEST, INDEX, CONFIG]), st.data())
def test_any_field_replaced_is_a_document_or_our_own_error(value: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    changed = as_json(value | {key: data.draw(json_values)})
    for parse in (ImageConfig.parse, parse_manifest):
        try:
            parse(changed, "it")
        except ImageFormatError as error:
            assert str(error).startswith("it")


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({**DESCRIPTOR, "size": -1}, "size"),
        ({**DESCRIPTOR, "size": 2**63}, "size"),
        ({**DESCRIPTOR, "size": "2"}, "size"),
        ({**DESCRIPTOR, "size": 2.0}, "size"),
        ({**DESCRIPTOR, "size": True}, "size"),
        ({**DESCRIPTOR, "digest": "sha256:../../etc/passwd"}, "digest"),
        ({**DESCRIPTOR, "digest": None}, "digest"),
        ({**DESCRIPTOR, "annotations": {"a": 1}}, "annotations.a"),
        ({"size": 1}, "digest"),
    ],
)
def test_a_descriptor_that_is_none_names_the_field(value: dict[str, Any], where: str) -> None:
    with pytest.raises(ImageFormatError, match=f"^it: {where}: "):
        Descriptor.of(value, "it")


def test_null_stands_for_what_is_empty_as_go_writes_it() -> None:
    config = CONFIG | {"history": None, "config": {"Env": None, "Labels": None, "Entrypoint": None, "Cmd": None}}
    parsed = ImageConfig.of(config, "it")
    assert (parsed.history, parsed.config.env, parsed.config.labels, parsed.config.cmd) == ([], [], {}, None)
    assert ImageConfig.of(CONFIG | {"config": None}, "it").config.user == ""
    assert ArchiveEntry.of({"Config": "c", "RepoTags": None, "Layers": None}, "it").layers == []


@pytest.mark.parametrize("kind", sorted(mediatypes.MANIFESTS | mediatypes.INDEXES))
def test_a_manifest_is_what_its_media_type_says(kind: str) -> None:
    value = INDEX if kind in mediatypes.INDEXES else MANIFEST
    wanted = Index if kind in mediatypes.INDEXES else Manifest
    assert type(parse_manifest(as_json(value | {"mediaType": kind}), "it", kind)) is wanted
    assert type(parse_manifest(as_json(value | {"mediaType": kind}), "it")) is wanted
    without = {key: item for key, item in value.items() if key != "mediaType"}
    assert type(parse_manifest(as_json(without), "it", kind)) is wanted
    assert type(parse_manifest(as_json(without), "it")) is wanted


@pytest.mark.parametrize(
    ("value", "media_type", "why"),
    [
        (MANIFEST | {"manifests": []}, "", "both a manifest and an index"),
        (INDEX | {"layers": []}, "", "both a manifest and an index"),
        (INDEX | {"config": {}}, "", "both a manifest and an index"),
        (MANIFEST, mediatypes.DOCKER_MANIFEST, "its descriptor says"),
        (MANIFEST | {"mediaType": "text/plain"}, "", "neither an image manifest nor an index"),
        (MANIFEST | {"schemaVersion": 1}, "", "schemaVersion"),
        (["a"], "", "is not a JSON object"),
        ({}, "", "neither an image manifest nor an index"),
    ],
)
def test_a_manifest_that_could_be_something_else_is_refused(value: Any, media_type: str, why: str) -> None:
    with pytest.raises(ImageFormatError, match=why):
        parse_manifest(as_json(value), "it", media_type)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("2024-05-06T07:08:09.123456789Z", datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)),
        ("2024-05-06t07:08:09.5+02:30", datetime(2024, 5, 6, 4, 38, 9, 500000, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("2024-13-06T07:08:09Z", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times(text: str | None, when: datetime | None) -> None:
    assert timestamp(text) == when


@pytest.mark.parametrize("data", [b'"' + b'\\"' * (2 << 20), b'["' + b"\\\\" * (2 << 20) + b"\\", b'"' * (4 << 20)])
def test_strings_that_do_not_end_are_refused_in_no_time(data: bytes) -> None:
    """A regular expression that begins anew at each quote would take hours."""
    with pytest.raises(ImageFormatError, match="is not JSON"):
        parse_json(data, "it", 8 << 20)
