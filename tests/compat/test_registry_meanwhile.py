"""A slow line between a store and Debian's docker-registry, and what others do in the store meanwhile: nobody waits for
the line, and what comes by it is whole in the end."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.compat.faulty_proxy import Fault, FaultyProxy, Request
from tests.compat.lazy_rig import serve_layers
from tests.compat.registry_rig import Peer, RegistryServer, serve_image
from tests.requirements import requires
from tests.unit.image_rig import in_memory, layer, made_image, names
from tests.unit.lazy_rig import Member, estargz
from tests.unit.test_changeset_kill import dies
from unionfs import api
from unionfs.errors import ImageError

pytestmark = requires("docker-registry", "skopeo")

#: What compression cannot make small.
NOISE = [random.Random(number).randbytes(200_000) for number in range(3)]
BASE, TOP, OTHER = (layer(**{f"file{number}": data}) for number, data in enumerate(NOISE))


@dataclass
class Scene:
    """`base:1` and, on it, `app:1` in a registry, a line to it, and a store that has `other:1` and what is pulled."""

    registry: RegistryServer
    proxy: FaultyProxy
    peer: Peer

    def name(self, image: str) -> str:
        return f"{self.proxy.host}/{image}:1"

    def pull(self, image: str, *, unpack: bool = True, lazy: bool = False) -> api.Pulled:
        options = self.peer.options
        return api.pull_image(self.peer.store, self.name(image), options=options, unpack=unpack, lazy=lazy)

    def layer(self, image: str, number: int) -> str:
        """The digest of a layer that is in the store."""
        return self.peer.store.resolve(self.name(image)).layers[number].digest

    def last_layer(self, image: str) -> str:
        """The digest of the last layer of an image in the registry."""
        other = Peer(self.peer.directory, "looked")
        api.pull_image(other.store, f"{self.registry.host}/{image}:1", options=other.options)
        return other.store.resolve(f"{self.registry.host}/{image}:1").layers[-1].digest

    @contextmanager
    def silence(self, stops: Callable[[Request], bool], work: Callable[[], object]) -> Iterator[Future[object]]:
        """`work` in a thread, and the line silent from the first request that `stops`, to the end of the block."""
        reached, over = threading.Event(), threading.Event()

        def plan(request: Request) -> Fault | None:
            if reached.is_set() or not stops(request):
                return None
            reached.set()
            whole = request.method == "GET" and "Range" not in request.headers
            return Fault(cut=70_000, stall=over) if whole else Fault(wait=over)

        self.proxy.plan = plan
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(work)
            try:
                assert reached.wait(30), running.exception(0)
                yield running
                assert not running.done()
            finally:
                over.set()
            running.result(60)

    def workspaces(self) -> list[bytes]:
        return os.listdir(self.peer.store.directory + b"/.unionfs/staging")


@pytest.fixture
def scene() -> Iterator[Scene]:
    with in_memory() as place, RegistryServer(place) as registry, FaultyProxy(registry.host) as proxy:
        peer = Peer(place)
        peer.load(made_image("other:1", OTHER))
        serve_image(registry, place, made_image("x/base:1", BASE))
        serve_image(registry, place, made_image("x/app:1", BASE, TOP))
        yield Scene(registry, proxy, peer)


def asks_for(digest: str) -> Callable[[Request], bool]:
    return lambda request: request.is_blob and request.digest == digest


def test_nobody_waits_for_a_pull(scene: Scene) -> None:
    store, top = scene.peer.store, scene.last_layer("app")
    with scene.silence(asks_for(top), lambda: scene.pull("app")):
        assert scene.workspaces() != []
        assert store.remove("other:1")[-1].kind == "deleted"
        scene.pull("base")
        store.tag(scene.name("base"), "second:1")
        store.untag("second:1")
        store.prune(all=True)
        assert (names(store), set(store.layout.blobs), len(scene.workspaces())) == ([], set(), 1)
        scene.pull("app", unpack=False)  # the same: whoever comes first
        assert names(store) == [scene.name("app")]
    assert (names(store), store.verify(), scene.workspaces()) == ([scene.name("app")], [], [])
    assert all(store.cache.has(diff_id) for diff_id in store.resolve(scene.name("app")).diff_ids)


def test_pull_fetches_what_it_counted_on_and_others_removed(scene: Scene) -> None:
    store, top = scene.peer.store, scene.last_layer("app")
    scene.pull("base")
    base = scene.layer("base", 0)
    with scene.silence(asks_for(top), lambda: scene.pull("app")):
        scene.proxy.forget()
        store.remove(scene.name("base"))
        assert [request for request in scene.proxy.requests if request.digest == base] == []
    assert [request.digest for request in scene.proxy.requests if request.digest == base] == [base]
    assert (names(store), store.verify()) == ([scene.name("app"), "other:1"], [])
    assert all(store.cache.has(diff_id) for diff_id in store.resolve(scene.name("app")).diff_ids)


def test_nobody_waits_for_a_push_and_what_is_removed_arrives(scene: Scene) -> None:
    store, name = scene.peer.store, scene.name("mine")
    scene.peer.load(made_image(name, TOP, OTHER))
    push = lambda: api.push_image(store, name, options=scene.peer.options)  # noqa: E731
    with scene.silence(lambda request: request.method == "HEAD" and "/blobs/" in request.path, push):
        store.remove(name)
        store.prune(all=True)
        assert set(store.layout.blobs) == set()
    second = Peer(scene.peer.directory, "second")
    pulled = api.pull_image(second.store, name, options=second.options)
    assert pulled.id == made_image(name, TOP, OTHER).id and second.store.verify() == []


def test_next_prune_sweeps_a_pull_that_was_killed_and_no_other(scene: Scene) -> None:
    """It had published a blob, which the other one needs."""
    store, top = scene.peer.store, scene.last_layer("app")
    blobs = set(store.layout.blobs)
    with scene.silence(asks_for(top), lambda: scene.pull("app")):
        mine = scene.workspaces()
        assert dies(2, lambda: scene.pull("base"), begin="os.link")
        assert len(scene.workspaces()) == 2 and blobs < set(store.layout.blobs)
        store.prune()
        assert (scene.workspaces(), set(store.layout.blobs)) == (mine, blobs)
    assert (names(store), store.verify(), scene.workspaces()) == ([scene.name("app"), "other:1"], [], [])


def test_pull_that_dies_while_it_publishes_leaves_nothing_before_the_image(scene: Scene) -> None:
    """From the first blob on that it publishes to index.json; what it left is swept."""
    store = scene.peer.store
    blobs, deaths = set(store.layout.blobs), 0
    while names(store) == ["other:1"]:
        store.prune()
        assert (set(store.layout.blobs), scene.workspaces()) == (blobs, [])
        assert dies(deaths, lambda: scene.pull("base"), begin="os.link")
        assert store.verify() == []
        deaths += 1
    assert deaths > 6  # blobs of a layer, a configuration and a manifest, and index.json
    store.prune()
    assert (names(store), store.verify(), scene.workspaces()) == ([scene.name("base"), "other:1"], [], [])


# layers that are not fetched ------------------------------------------------------------------------------------------
@pytest.fixture
def lazy(scene: Scene) -> Scene:
    """`lazy:1` of a layer that can be fetched in parts, `top:1` of that and a second one."""
    first, second = (estargz([Member(name, NOISE[number])]) for number, name in enumerate("ab"))
    serve_layers(scene.registry, scene.peer.directory, first, name="lazy:1")
    serve_layers(scene.registry, scene.peer.directory, first, second, name="top:1")
    return scene


def absent(scene: Scene) -> list[str]:
    """The layers that were not fetched, where nothing else is wrong."""
    faults = scene.peer.store.verify()
    assert all(fault.absent for fault in faults)
    return [fault.what for fault in faults]


def test_nobody_waits_for_a_lazy_pull_which_notes_anew_what_others_removed(lazy: Scene) -> None:
    store, top = lazy.peer.store, lazy.last_layer("top")
    lazy.pull("lazy", lazy=True)
    shared = lazy.layer("lazy", 0)
    with lazy.silence(asks_for(top), lambda: lazy.pull("top", lazy=True)):
        lazy.proxy.forget()
        store.remove(lazy.name("lazy"))
        store.prune()
        assert (names(store), absent(lazy)) == (["other:1"], [])
    assert sorted(absent(lazy)) == sorted([shared, top])
    assert [request.digest for request in lazy.proxy.requests if request.digest == shared] == [shared]
    assert api.fetch_image(store, lazy.name("top"), options=lazy.peer.options) == 2
    assert store.verify() == []


def test_image_is_removed_while_the_rest_of_it_is_fetched(lazy: Scene) -> None:
    store, name = lazy.peer.store, lazy.name("lazy")
    lazy.pull("lazy", lazy=True)
    digest, before = lazy.layer("lazy", 0), set(store.layout.blobs)
    fetch = lambda: api.fetch_image(store, name, options=lazy.peer.options)  # noqa: E731
    removed = pytest.raises(ImageError, match=f"{name} was removed from the store while its layers were fetched")
    with removed, lazy.silence(asks_for(digest), fetch):
        store.remove(name)
    assert (names(store), store.verify(), lazy.workspaces()) == (["other:1"], [], [])
    assert set(store.layout.blobs) < before
