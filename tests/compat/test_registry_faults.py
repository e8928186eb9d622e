"""A bad network between a store and Debian's docker-registry: cuts, silence, damage, disorder, and refusals."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.faulty_proxy import Fault, FaultyProxy, Request
from tests.compat.registry_rig import Peer, RegistryServer, serve_image
from tests.requirements import requires
from tests.unit.image_rig import Made, layer, listing, made_image, names
from unionfs import api
from unionfs.errors import ImageError, ImageFormatError, RegistryError

pytestmark = requires("docker-registry", "skopeo")

#: Layers that compression cannot make small.
LAYERS = [layer(**{f"file{number}": random.Random(number).randbytes(200_000)}) for number in range(4)]


@dataclass
class Scene:
    """An image in a registry, a bad line to it, and a store that knows another image."""

    registry: RegistryServer
    proxy: FaultyProxy
    peer: Peer
    id: str

    @property
    def name(self) -> str:
        return f"{self.proxy.host}/a/b:1"

    def pull(self, unpack: bool = True) -> api.Pulled:
        pulled = api.pull_image(self.peer.store, self.name, options=self.peer.options, unpack=unpack)
        assert pulled.id == self.id
        assert self.peer.store.verify() == []
        return pulled

    def fails(self, error: type[ImageError], words: str) -> ImageError:
        """The store is then as it was."""
        before = listing(self.peer.store)
        with pytest.raises(error, match=words) as e:
            api.pull_image(self.peer.store, self.name, options=self.peer.options)
        assert {path: data for path, data in listing(self.peer.store).items() if data != b"a directory"} == {
            path: data for path, data in before.items() if data != b"a directory"
        }
        return e.value

    def blobs(self) -> list[Request]:
        return [request for request in self.proxy.requests if request.is_blob]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = made_image("x/a/b:1", *LAYERS)
    peer = Peer(tmp_path)
    peer.load(made_image("other:1", layer(other="file")))
    with RegistryServer(tmp_path) as registry, FaultyProxy(registry.host) as proxy:
        serve_image(registry, tmp_path, made)
        yield Scene(registry, proxy, peer, made.id)


@pytest.mark.parametrize("unpack", [True, False])
def test_cut_blobs_are_taken_up_where_they_were(scene: Scene, unpack: bool) -> None:
    scene.proxy.plan = lambda request: Fault(cut=70_000) if request.is_blob and request.seen <= 2 else None
    scene.pull(unpack)
    for digest in {request.digest for request in scene.blobs()}:
        ranges = [request.headers.get("Range") for request in scene.blobs() if request.digest == digest]
        if len(ranges) > 2:  # the config is complete before the cut
            assert ranges == [None, "bytes=70000-", "bytes=140000-"]


def test_server_without_ranges_begins_again(scene: Scene) -> None:
    def plan(request: Request) -> Fault | None:
        if not request.is_blob:
            return None
        return Fault(cut=100_000) if request.seen == 1 else Fault(without=("Range",))

    scene.proxy.plan = plan
    scene.pull()


def test_server_that_sends_another_range_is_asked_for_the_whole(scene: Scene) -> None:
    def plan(request: Request) -> Fault | None:
        if not request.is_blob:
            return None
        return Fault(cut=100_000) if request.seen == 1 else Fault(headers={"Content-Range": "bytes 5-9/10"})

    scene.proxy.plan = plan
    scene.pull()


def test_blob_that_is_cut_again_and_again(scene: Scene) -> None:
    scene.proxy.plan = lambda request: Fault(cut=0) if request.is_blob else None
    error = scene.fails(RegistryError, "the connection to .* broke")
    assert error.hint == "try again"


def test_silent_server_is_asked_again(scene: Scene) -> None:
    over = threading.Event()
    scene.peer.more = {"patience": 0.5}
    scene.proxy.plan = lambda request: Fault(cut=90_000, stall=over) if request.is_blob and request.seen == 1 else None
    try:
        scene.pull()
    finally:
        over.set()


@pytest.mark.parametrize("unpack", [True, False])
@pytest.mark.parametrize("fault", [Fault(corrupt=20), Fault(corrupt=150_000), Fault(swap=(1000, 60_000, 30_000))])
def test_damage_on_the_way_is_found_and_fetched_again(scene: Scene, fault: Fault, unpack: bool) -> None:
    digests = layer_digests(scene)
    scene.proxy.plan = lambda request: fault if request.digest in digests and request.seen == 1 else None
    scene.pull(unpack)
    assert sorted(request.digest for request in scene.blobs() if request.digest in digests) == sorted(digests * 2)


def layer_digests(scene: Scene) -> list[str]:
    """Of the image at the registry, seen by a pull into another store."""
    other = Peer(scene.peer.directory, "probe")
    api.pull_image(other.store, scene.name, options=other.options, unpack=False)
    scene.proxy.forget()
    return [str(one.digest) for one in other.store.resolve(scene.name).layers]


def test_layer_that_is_always_damaged(scene: Scene) -> None:
    last = layer_digests(scene)[-1]
    scene.proxy.plan = lambda request: Fault(corrupt=100) if request.is_blob and request.digest == last else None
    error = scene.fails(ImageFormatError, f"the layer {last} came damaged: its digest is sha256:")
    assert error.hint == "the registry, or something before it, is at fault"


def test_layers_that_the_config_does_not_mean(scene: Scene, tmp_path: Path) -> None:
    first, second = LAYERS[:2]
    made = Made(made_image("", first, second).config, [second, first], ["x/a/lie:1"])
    serve_image(scene.registry, tmp_path, made)
    before = listing(scene.peer.store)
    with pytest.raises(ImageFormatError, match="is not the one it should be: its diff_id is sha256:"):
        api.pull_image(scene.peer.store, f"{scene.proxy.host}/a/lie:1", options=scene.peer.options)
    assert names(scene.peer.store) == ["other:1"]
    assert set(listing(scene.peer.store)) == set(before)


def test_manifest_that_is_damaged(scene: Scene) -> None:
    scene.proxy.plan = lambda request: (
        Fault(corrupt=5) if request.method == "GET" and "/manifests/" in request.path else None
    )
    scene.fails(ImageFormatError, "manifest sha256:.* is damaged: its digest is")


def test_config_that_is_damaged(scene: Scene) -> None:
    scene.proxy.plan = lambda request: Fault(corrupt=5) if request.is_blob else None
    scene.fails(ImageFormatError, "the blob sha256:.* is damaged: its digest is")


def test_manifest_that_is_too_large(scene: Scene) -> None:
    huge = b'{"schemaVersion":2,"x":"' + b"x" * (5 << 20) + b'"}'
    scene.proxy.plan = lambda request: (
        Fault(status=405)
        if request.method == "HEAD"
        else Fault(status=200, body=huge)
        if "manifests" in request.path
        else None
    )
    scene.fails(ImageFormatError, "more than 4194304 bytes are refused")


def test_manifest_that_is_said_to_be_too_large(scene: Scene) -> None:
    headers = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    scene.proxy.plan = lambda request: (
        Fault(status=200, headers=headers, body=b"x" * (5 << 20)) if request.method == "HEAD" else None
    )
    scene.fails(ImageFormatError, "has 5242880 bytes; more than 4194304 are refused")


def test_blob_that_does_not_end(scene: Scene) -> None:
    last = layer_digests(scene)[-1]
    scene.proxy.plan = lambda request: (
        Fault(status=200, body=b"\0" * 10_000_000) if request.is_blob and request.digest == last else None
    )
    scene.fails(ImageFormatError, "has more than|came damaged")


def test_layers_may_arrive_in_any_order(scene: Scene) -> None:
    """The first is held back until the others are there."""
    first, *others = layer_digests(scene)
    there = threading.Event()
    done: list[str] = []

    def told(transfer: api.Transfer) -> None:
        if transfer.status == "Pull complete":
            done.append(transfer.id)
            if len(done) == len(others):
                there.set()

    scene.proxy.plan = lambda request: Fault(wait=there) if request.is_blob and request.digest == first else None
    api.pull_image(scene.peer.store, scene.name, options=scene.peer.options, report=told)
    assert done[-1] == first.removeprefix("sha256:")[:12]
    assert there.is_set() and scene.peer.store.verify() == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_registry_is_asked_again(scene: Scene, status: int) -> None:
    scene.proxy.plan = lambda request: Fault(status=status) if request.seen <= 2 else None
    scene.pull()


def test_requests_that_get_lost_are_sent_again(scene: Scene) -> None:
    scene.proxy.plan = lambda request: [None, Fault(lost=True), Fault(answer_lost=True), None][min(request.seen, 3)]
    scene.pull()


@pytest.mark.parametrize(
    ("status", "words", "hint"),
    [
        (401, "pull access denied for HOST/a/b: unauthorized: authentication required", "unionfs login HOST"),
        (403, "pull access denied for HOST/a/b: denied: requested access to the resource is denied", "login HOST"),
        (404, "manifest for HOST/a/b:1 not found", "check name and tag"),
        (429, "manifest for HOST/a/b:1: toomanyrequests", "wait 7 seconds, or unionfs login HOST"),
        (500, "HOST answered 500 Internal Server Error", "try again later"),
        (418, "HOST answered 418", ""),
    ],
)
def test_refusal_says_what_to_do(scene: Scene, status: int, words: str, hint: str) -> None:
    scene.proxy.plan = lambda request: (
        Fault(status=status, headers={"Retry-After": "7"}) if "/manifests/" in request.path else None
    )
    error = scene.fails(RegistryError, words.replace("HOST", scene.proxy.host))
    assert hint.replace("HOST", scene.proxy.host) in (error.hint or "")


def test_words_of_a_registry_cannot_move_the_cursor(scene: Scene) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"\\u001b[2J\\u202egone\\nerror: x"}]}'
    scene.proxy.plan = lambda request: Fault(status=403, body=body) if "/manifests/" in request.path else None
    error = scene.fails(RegistryError, "pull access denied")
    assert str(error).isprintable()


def test_failure_of_one_layer_ends_the_others(scene: Scene) -> None:
    digests = layer_digests(scene)

    def plan(request: Request) -> Fault | None:
        if not request.is_blob or request.digest not in digests:
            return None
        return Fault(status=404) if request.digest == digests[-1] else Fault(cut=50_000 * (request.seen % 2))

    scene.proxy.plan = plan
    scene.fails(RegistryError, "not found|broke")
    assert names(scene.peer.store) == ["other:1"]
