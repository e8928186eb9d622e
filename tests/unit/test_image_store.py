"""What a store holds, and what its images are called: resolving, tags, lists, filters, inspect and history."""

from __future__ import annotations

import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.image_rig import (
    Blobs,
    Made,
    layer,
    listing,
    made_image,
    named,
    oci,
    old_docker,
    open_store,
    write_files,
)
from unionfs.errors import ImageError, ImageFormatError, ImageNotFound, OptionError, ReferenceFormatError
from unionfs.image.place import store_directory
from unionfs.image.store import Store

BASE = layer(base="base" * 100)
OLD = made_image("app:1 app:stable", BASE, created="2020-01-01T00:00:00Z")
NEW = made_image(
    "app:2", BASE, layer(new="new"), created="2021-01-01T00:00:00Z", config={"Labels": {"a": "b", "c": ""}}
)
OTHER = made_image("example.com:5000/team/app:2", layer(o="o"), created="2022-01-01T00:00:00Z", config=None)
DANGLING = made_image("", layer(d="d"), created="0001-01-01T00:00:00Z", history=[])


def load(store: Store, *images: Made) -> None:
    store.load(io.BytesIO(old_docker(images)))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that the tests only read."""
    store = open_store(tmp_path_factory.mktemp("full"))
    load(store, OLD, NEW, OTHER, DANGLING)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path)
    load(made, OLD, NEW, OTHER, DANGLING)
    return made


# where it is ----------------------------------------------------------------------------------------------------------
def test_the_place_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/a/data")
    assert store_directory(None, {}) == b"/a/data/unionfs/images"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/a/home")
    assert store_directory(None, {}) == b"/a/home/.local/share/unionfs/images"
    environ = {"UNIONFS_STORE": "/a/store"}
    assert store_directory("/else/where", environ) == b"/else/where"
    assert store_directory(b"rel", environ) == os.path.join(os.getcwdb(), b"rel")
    assert store_directory(None, environ) == b"/a/store"


def test_a_store_that_is_not_there_is_empty_and_is_not_made_by_looking(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert (store.images(), store.verify(), store.prune().removed) == ([], [], ())
    with pytest.raises(ImageNotFound, match="No such image: x"):
        store.resolve("x")
    with pytest.raises(ImageNotFound):
        store.remove("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "there", ["a file", "a directory of something else", "a home without visible files", "a layout of the future"]
)
def test_what_is_no_store_is_left_alone(tmp_path: Path, there: str) -> None:
    place = tmp_path / "store"
    if there == "a file":
        place.write_text("text")
    else:
        place.mkdir()
        if there == "a directory of something else":
            (place / "holiday.jpg").write_text("beach")
        elif there == "a home without visible files":
            (place / ".profile").write_text("umask 022")
        else:
            (place / "oci-layout").write_text('{"imageLayoutVersion":"7"}')
    store = open_store(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for call in (store.images, lambda: load(store, OLD), store.prune):
        with pytest.raises(ImageError, match=r"is no image store|layout version .7. is not known"):
            call()
    assert store.verify() != []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_layout_that_another_tool_made_is_a_store(tmp_path: Path) -> None:
    blobs = Blobs()
    descriptor = blobs.image(NEW, "gzip")
    files = blobs.layout(named(descriptor, "docker.io/library/app:2"), named(descriptor, "Strange_Name"), descriptor)
    write_files(tmp_path / "store", files)
    store = open_store(tmp_path)
    assert [(one.id, one.names) for one in store.images()] == [(NEW.id, ("app:2", "Strange_Name"))]
    assert store.resolve("Strange_Name").id == store.resolve("app:2").id == NEW.id
    load(store, OLD)
    assert store.resolve("app:stable").id == OLD.id
    document = json.loads((tmp_path / "store/index.json").read_bytes())
    assert [one.get("annotations", {}).get("org.opencontainers.image.ref.name") for one in document["manifests"]] == [
        "docker.io/library/app:2", "Strange_Name", "app:1", "app:stable",
    ]  # fmt: skip


def test_what_others_wrote_into_index_json_stays(tmp_path: Path) -> None:
    blobs = Blobs()
    mine = {**named(blobs.image(NEW), "app:2"), "x-mine": [1]}
    mine["annotations"]["com.example.me"] = "kept"
    files = blobs.layout(mine)
    files["index.json"] = files["index.json"][:-1] + b',"annotations":{"x":"y"},"x-own":{"z":null}}'
    write_files(tmp_path / "store", files)
    store = open_store(tmp_path)
    store.tag("app:2", "again")
    store.untag("app:2", ["app:2"])
    document = json.loads((tmp_path / "store/index.json").read_bytes())
    assert (document["annotations"], document["x-own"]) == ({"x": "y"}, {"z": None})
    load(store, OLD)
    store.tag("app:1", "again")
    document = json.loads((tmp_path / "store/index.json").read_bytes())
    assert document["manifests"][-1]["annotations"] == {"org.opencontainers.image.ref.name": "again:latest"}


# resolving ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("app:1", OLD),
        ("docker.io/library/app:1", OLD),
        ("index.docker.io/app:stable", OLD),
        ("example.com:5000/team/app:2", OTHER),
        (OLD.id, OLD),
        (OLD.id[7:], OLD),
        (OLD.id[7:19], OLD),
        (OLD.id[:15], OLD),
        (DANGLING.id[7:17], DANGLING),
    ],
)
def test_an_image_by_name_or_id(full: Store, name: str, image: Made) -> None:
    assert full.resolve(name).id == image.id


def test_an_image_by_the_digest_of_its_manifest(full: Store) -> None:
    image = full.resolve("app:2")
    for name in (image.descriptor.digest, f"app@{image.descriptor.digest}", f"app:2@{image.descriptor.digest}"):
        assert full.resolve(name).id == NEW.id
    with pytest.raises(ImageNotFound):
        full.resolve(f"other@{image.descriptor.digest}")


@pytest.mark.parametrize(
    "name", ["app", "app:3", "team/app:2", "0" * 12, "sha256:" + "0" * 64, "zzz", "", "UPPER", "a b"]
)
def test_what_nothing_is_called(full: Store, name: str) -> None:
    with pytest.raises(ImageNotFound, match=f"^No such image: {name}(:latest)?$"):
        full.resolve(name)


def test_a_short_id_of_two_images_is_ambiguous(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    images = [made_image(f"i:{number}", BASE, author=str(number)) for number in range(17)]
    load(store, *images)
    digits = [image.id[7] for image in images]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(ImageError, match=f"^ambiguous digest string: {twice}$") as caught:
        store.resolve(twice)
    assert caught.value.hint is not None
    assert all(image.id[7:19] in caught.value.hint for image in images if image.id[7] == twice)


def test_a_name_goes_before_an_id_that_begins_so(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    load(store, OLD, made_image(f"{OLD.id[7:15]}:latest", layer(trick="trick")))
    assert store.resolve(OLD.id[7:15]).id != OLD.id
    assert store.resolve(OLD.id[7:16]).id == OLD.id


def test_no_name_stands_before_the_digest_that_it_looks_like(tmp_path: Path) -> None:
    """Another tool can call its image anything."""
    blobs = Blobs()
    old, other = blobs.image(OLD), blobs.image(OTHER)
    tricks = [named(other, name) for name in (OLD.id, OLD.id[7:], f"sha256:{NEW.id[7:]}", str(old["digest"]))]
    write_files(tmp_path / "store", blobs.layout(named(old, "old:1"), *tricks))
    store = open_store(tmp_path)
    for name in (OLD.id, OLD.id[7:], str(old["digest"]), f"old@{old['digest']}"):
        assert store.resolve(name).id == OLD.id
    assert store.resolve(NEW.id).id == OTHER.id  # there is nothing else of that name
    assert [one.what for one in store.remove(OLD.id)][:2] == ["old:1", OLD.id]
    assert {one.id for one in store.images()} == {OTHER.id}


def test_the_same_name_twice_is_the_last_as_other_tools_add_it(tmp_path: Path) -> None:
    blobs = Blobs()
    one, two = blobs.image(OLD), blobs.image(NEW)
    write_files(tmp_path / "store", blobs.layout(named(one, "x:1"), named(two, "docker.io/library/x:1")))
    store = open_store(tmp_path)
    assert store.resolve("x:1").id == NEW.id
    store.tag("x:1", "x:1")
    assert store.resolve("x:1").id == NEW.id
    assert sorted(one.names for one in store.images()) == [(), ("x:1",)]


# names ----------------------------------------------------------------------------------------------------------------
def test_a_tag_is_a_further_name(store: Store) -> None:
    assert store.tag("app:1", "docker.io/library/new") is None
    assert store.resolve("new").id == OLD.id
    assert store.resolve("new").names == ("app:1", "app:stable", "new:latest")
    before = listing(store)
    assert store.tag(OLD.id[:20], "new:latest") is None
    assert listing(store) == before


def test_a_tag_of_another_image_is_taken_from_it(store: Store) -> None:
    assert store.tag("app:2", "app:stable") == OLD.id
    assert (store.resolve("app:stable").id, store.resolve("app:1").id) == (NEW.id, OLD.id)
    assert store.tag("app:2", "app:1") == OLD.id
    assert store.images(filters=["dangling=true"])[0].id == OLD.id
    assert store.verify() == []


def test_a_dangling_image_gets_a_name(store: Store) -> None:
    store.tag(DANGLING.id, "found:1")
    assert [one.names for one in store.images() if one.id == DANGLING.id] == [("found:1",)]
    assert store.images(filters=["dangling=1"]) == []


@pytest.mark.parametrize("new", ["", "UPPER", "a b", "a:b:c", "-a", "a@b", "sha256", "sha512:a", f"library/{OLD.id}"])
def test_what_is_no_name_is_no_tag(store: Store, new: str) -> None:
    with pytest.raises(ReferenceFormatError):
        store.tag("app:1", new)


def test_a_tag_has_no_digest(store: Store) -> None:
    with pytest.raises(ImageError, match="refusing to create a tag with a digest reference"):
        store.tag("app:1", f"a@{OLD.id}")


def test_untag_leaves_the_image(store: Store) -> None:
    assert [one.text for one in store.untag("app:1", ["app:stable"])] == ["Untagged: app:stable"]
    assert [one.text for one in store.untag("app:1")] == ["Untagged: app:1"]
    assert store.untag(OLD.id) == []
    assert store.resolve(OLD.id).names == ()
    assert store.verify() == []


def test_untag_of_a_name_that_another_image_has(store: Store) -> None:
    before = listing(store)
    with pytest.raises(ImageNotFound, match="app:1 has no tag app:2") as caught:
        store.untag("app:1", ["app:1", "app:2"])
    assert caught.value.hint == "it has app:1, app:stable"
    assert listing(store) == before


# lists ----------------------------------------------------------------------------------------------------------------
def test_all_images_newest_first(full: Store) -> None:
    images = full.images()
    assert [one.id for one in images] == [OTHER.id, NEW.id, OLD.id, DANGLING.id]
    assert [one.names for one in images] == [
        ("example.com:5000/team/app:2",), ("app:2",), ("app:1", "app:stable"), (),
    ]  # fmt: skip
    assert images[2].created == datetime(2020, 1, 1, tzinfo=UTC) and images[3].created is None
    assert images[1].size == len(BASE) + len(layer(new="new"))
    assert images[1].content_size == images[1].size + len(NEW.config)
    assert images[1].labels == {"a": "b", "c": ""} and images[0].labels == {}
    assert images[1].platforms == ("linux/amd64",)
    assert [one.id for one in full.images(all=False)] == [OTHER.id, NEW.id, OLD.id]


def test_the_size_of_compressed_layers_is_that_of_what_is_in_them(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.load(io.BytesIO(oci([NEW], "gzip")))
    assert store.images()[0].size == len(BASE) + len(layer(new="new"))
    assert store.images()[0].content_size < store.images()[0].size


@pytest.mark.parametrize(
    ("filters", "images"),
    [
        (["dangling=true"], [DANGLING]),
        (["dangling=false"], [OTHER, NEW, OLD]),
        (["label=a"], [NEW]),
        (["label=c="], [NEW]),
        (["label=a=b", "label=c"], [NEW]),
        (["label=a=x"], []),
        (["label=a", "label=absent"], []),
        (["before=app:2"], [OLD]),
        (["since=app:2"], [OTHER]),
        (["since=app:1", "before=example.com:5000/team/app:2"], [NEW]),
        (["reference=app"], [NEW, OLD]),
        (["reference=app:1"], [OLD]),
        (["reference=a*:[12]"], [NEW, OLD]),
        (["reference=*"], [NEW, OLD]),
        (["reference=*/*/app"], [OTHER]),
        (["reference=app:1", "reference=app:2"], [NEW, OLD]),
        (["reference=nothing"], []),
        (["until=2020-01-01T00:00:00Z"], [OLD]),
        (["until=24h"], [OTHER, NEW, OLD]),
        (["until=1609459200.5", "label=a"], [NEW]),
        (["until=2019-12-31"], []),
    ],
)
def test_filters(full: Store, filters: list[str], images: list[Made]) -> None:
    assert [one.id for one in full.images(filters=filters)] == [image.id for image in images]


@pytest.mark.parametrize("filters", [["reference=*:1"], ["reference=app:1", "reference=*/*/app"], ["reference=*[0-1]"]])
def test_of_the_names_of_an_image_those_are_told_that_fit(full: Store, filters: list[str]) -> None:
    assert [one.names for one in full.images(filters=filters) if one.id == OLD.id] == [("app:1",)]
    assert [one.names for one in full.images(names=["app:s*"])] == [("app:stable",)]
    assert [one.names for one in full.images(filters=filters, names=["app"]) if one.id == OLD.id] == [("app:1",)]
    assert full.images(filters=filters, names=["app:stable"]) == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a[^q-z]p", {"app:2", "app:1", "app:stable"}),
        ("a[!]p", set()),
        (r"\ap\p:[\1-2]", {"app:2", "app:1"}),
        ("app:?", {"app:2", "app:1"}),
        ("*:*t*", {"app:stable"}),
        ("[z-a]pp", set()),
        ("[^z-a]pp:2", {"app:2"}),
        ("*", {"app:2", "app:1", "app:stable"}),
        ("*/*", set()),
    ],
)
def test_patterns_are_those_of_go(full: Store, pattern: str, names: set[str]) -> None:
    assert {name for one in full.images(names=[pattern]) for name in one.names} == names


@pytest.mark.parametrize("pattern", ["[", "[]", "[^]", "a[b", "[a-]", "[-a]", "a\\", "[\\", "[a]["])
def test_what_is_no_pattern(full: Store, pattern: str) -> None:
    with pytest.raises(OptionError, match="syntax error in pattern"):
        full.images(filters=[f"reference={pattern}"])


@pytest.mark.parametrize("word", ["dangling=perhaps", "label", "label!=a", "size=1", "until=soon", "until=", "=", ""])
def test_filters_that_mean_nothing(full: Store, word: str) -> None:
    with pytest.raises(OptionError, match="invalid filter"):
        full.images(filters=[word])
    with pytest.raises(OptionError, match="more than one until"):
        full.images(filters=["until=1h", "until=2h"])


def test_filters_by_an_image_that_is_not_there(full: Store) -> None:
    with pytest.raises(ImageNotFound):
        full.images(filters=["before=absent"])


@pytest.mark.parametrize(("name", "images"), [("app", [NEW, OLD]), ("app:1", [OLD]), ("a*", [NEW, OLD]), ("b", [])])
def test_a_list_of_some_names(full: Store, name: str, images: list[Made]) -> None:
    assert [one.id for one in full.images(names=[name])] == [image.id for image in images]


# one image ------------------------------------------------------------------------------------------------------------
def test_inspect_has_dockers_shape(full: Store) -> None:
    shown = full.inspect("app:stable")
    digest = full.resolve("app:1").descriptor.digest
    assert shown["Id"] == OLD.id
    assert shown["RepoTags"] == ["app:1", "app:stable"]
    assert shown["RepoDigests"] == [f"app@{digest}"]
    assert (shown["Created"], shown["Os"], shown["Architecture"]) == ("2020-01-01T00:00:00Z", "linux", "amd64")
    assert shown["Config"] == {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"made": "by hand"}}
    assert shown["RootFS"] == {"Type": "layers", "Layers": OLD.diff_ids}
    assert shown["Size"] == len(BASE)
    json.dumps(shown)


def test_history_is_newest_first(full: Store, tmp_path: Path) -> None:
    rows = full.history("app:2")
    assert [(row.id, row.created_by, row.size) for row in rows] == [
        (NEW.id, "ADD 1", len(layer(new="new"))), (None, "ADD 0", len(BASE)),
    ]  # fmt: skip
    assert rows[0].created == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def test_history_with_empty_layers_and_of_layers_it_does_not_tell_of(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    steps = [{"created_by": "ADD"}, {"created_by": "CMD", "empty_layer": True, "comment": "c"}]
    load(store, made_image("some:1", BASE, layer(x="y"), history=steps), made_image("none:1", BASE, history=[]))
    load(store, made_image("scratch:1"))
    assert [(row.id is None, row.created_by, row.size, row.empty_layer) for row in store.history("some:1")] == [
        (False, "CMD", 0, True), (True, "ADD", len(layer(x="y")), False), (True, "", len(BASE), False),
    ]  # fmt: skip
    assert [(row.created_by, row.size) for row in store.history("none:1")] == [("", len(BASE))]
    assert [row.size for row in store.history("scratch:1")] == [0]


def test_the_comment_of_an_image_is_that_of_its_last_step(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    steps = [{"comment": "first"}, {"empty_layer": True}]
    load(store, made_image("last:1", BASE, history=steps[::-1]), made_image("first:1", BASE, history=steps))
    load(store, made_image("own:1", BASE, history=steps, comment="mine"), made_image("none:1", history=[]))
    assert [store.inspect(f"{name}:1")["Comment"] for name in ("last", "first", "own", "none")] == [
        "first", "", "mine", "",
    ]  # fmt: skip


def test_a_damaged_image_does_not_hide_the_others(store: Store) -> None:
    config = store.layout.blobs.path(store.resolve("app:2").id)
    Path(os.fsdecode(config)).write_bytes(b"{}")
    assert [one.id for one in store.images()] == [OTHER.id, OLD.id, DANGLING.id]
    assert store.resolve("app:1").id == OLD.id
    with pytest.raises(ImageFormatError, match="bytes, not"):
        store.resolve("app:2")
    load(store, NEW)  # mends it
    assert store.resolve("app:2").id == NEW.id and store.verify() == []
