"""Pulling from Debian's docker-registry, filled by skopeo: what arrives, and what is not asked for."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.compat.faulty_proxy import FaultyProxy
from tests.compat.image_peers import skopeo
from tests.compat.registry_rig import Peer, RegistryServer, serve_image
from tests.requirements import requires
from tests.unit.image_rig import Blobs, Made, files_tar, layer, listing, made_image, named, names, sha256
from unionfs import api
from unionfs.errors import ImageNotFound, RegistryError

pytestmark = requires("docker-registry", "skopeo")

BASE, TOP = layer(etc__motd="hello", bin__sh="#!"), layer(etc__motd="good bye")


def image(tags: str = "x/a/b:1", *layers: bytes) -> Made:
    return made_image(tags, *(layers or (BASE, TOP)))


@pytest.mark.parametrize("compression", ["gzip", ""])
@pytest.mark.parametrize("unpack", [True, False])
def test_image_of_skopeo_arrives_whole(
    registry: RegistryServer, peer: Peer, tmp_path: Path, compression: str, unpack: bool
) -> None:
    made = image()
    peer.load(image("somewhere/else:1"), compression=compression)  # the same layers; that copy has their bytes
    serve_image(registry, tmp_path, made, compression="gzip")
    pulled = api.pull_image(peer.store, f"{registry.host}/a/b:1", options=peer.options, unpack=unpack)
    assert (pulled.id, pulled.status) == (made.id, "Downloaded newer image")
    assert pulled.reference == pulled.familiar == f"{registry.host}/a/b:1"
    assert peer.store.verify() == []
    found = peer.store.resolve(f"{registry.host}/a/b:1")
    assert (found.id, found.diff_ids) == (made.id, made.diff_ids)
    with peer.store.using(f"{registry.host}/a/b:1"):
        assert all(peer.store.cache.has(diff_id) for diff_id in made.diff_ids)


def test_other_tools_read_what_arrived_in_place(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    made = image()
    serve_image(registry, tmp_path, made)
    pulled = api.pull_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    raw = skopeo("inspect", "--raw", f"oci:{peer.store.directory.decode()}:{registry.host}/a/b:1")
    assert sha256(raw.encode()) == pulled.digest
    config = skopeo("inspect", "--config", "--raw", f"oci:{peer.store.directory.decode()}:{registry.host}/a/b:1")
    assert sha256(config.encode()) == made.id


def test_tag_is_looked_up_once_and_all_else_is_by_digest(
    registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path
) -> None:
    serve_image(registry, tmp_path, image())
    pulled = api.pull_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    assert proxy.asked[:3] == ["GET /v2/", "HEAD /v2/a/b/manifests/1", f"GET /v2/a/b/manifests/{pulled.digest}"]
    assert len(proxy.asked) == 3 + 3
    assert all("/blobs/sha256:" in line for line in proxy.asked[3:])


def test_second_pull_asks_only_what_the_tag_means(
    registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path
) -> None:
    serve_image(registry, tmp_path, image())
    api.pull_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    before = listing(peer.store)
    proxy.requests.clear()
    pulled = api.pull_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    assert pulled.status == "Image is up to date"
    assert proxy.asked == ["GET /v2/", "HEAD /v2/a/b/manifests/1"]
    assert listing(peer.store) == before


def test_layers_that_are_here_are_not_fetched(
    registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path
) -> None:
    serve_image(registry, tmp_path, image("x/a/base:1", BASE))
    serve_image(registry, tmp_path, image())
    api.pull_image(peer.store, f"{proxy.host}/a/base:1", options=peer.options)
    (base,) = peer.store.resolve(f"{proxy.host}/a/base:1").layers
    told: list[api.Transfer] = []
    api.pull_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options, report=told.append)
    assert [r for r in proxy.requests if r.path.startswith("/v2/a/b/") and base.digest in r.path] == []
    assert api.Transfer(base.digest.short, "Already exists") in told
    assert peer.store.verify() == []


def test_moved_tag_leaves_the_old_image_without_a_name(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    old, new = image("x/a/b:1", BASE), image("x/a/b:1", TOP)
    serve_image(registry, tmp_path, old)
    api.pull_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    serve_image(registry, tmp_path, new)
    pulled = api.pull_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    assert (pulled.id, pulled.status) == (new.id, "Downloaded newer image")
    there = {summary.id: summary.names for summary in peer.store.images()}
    assert there == {old.id: (), new.id: (f"{registry.host}/a/b:1",)}


def test_image_by_digest_has_no_name(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    serve_image(registry, tmp_path, image())
    digest = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/a/b:1"))["Digest"]
    wanted = f"{registry.host}/a/b@{digest}"
    assert api.pull_image(peer.store, wanted, options=peer.options).digest == digest
    assert api.pull_image(peer.store, wanted, options=peer.options).status == "Image is up to date"
    assert (names(peer.store), peer.store.resolve(wanted).descriptor.digest) == ([], digest)


# platforms ------------------------------------------------------------------------------------------------------------
def serve_platforms(registry: RegistryServer, directory: Path) -> dict[str, Made]:
    """An index of two platforms and an attestation, as BuildKit pushes them."""
    blobs, made, children = Blobs(), {}, []
    for architecture in ("amd64", "arm64"):
        made[architecture] = made_image("", layer(arch=architecture), BASE, architecture=architecture)
        platform = {"os": "linux", "architecture": architecture}
        children.append({**blobs.image(made[architecture], "gzip"), "platform": platform})
    attestation = made_image("", layer(statement="{}"), architecture="unknown", os="unknown")
    children.append({**blobs.image(attestation, "gzip"), "platform": {"os": "unknown", "architecture": "unknown"}})
    archive = directory / "platforms.tar"
    archive.write_bytes(files_tar(blobs.layout(named(blobs.index(*children), "many"))))
    skopeo(
        "copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false",
        f"oci-archive:{archive}:many", f"docker://{registry.host}/a/many:1",
    )  # fmt: skip
    return made


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_platform_is_chosen(registry: RegistryServer, peer: Peer, tmp_path: Path, architecture: str) -> None:
    made = serve_platforms(registry, tmp_path)
    name = f"{registry.host}/a/many:1"
    pulled = api.pull_image(peer.store, name, platform=f"linux/{architecture}", options=peer.options)
    assert pulled.id == made[architecture].id == peer.store.resolve(name).id
    assert peer.store.verify() == []


def test_both_platforms_are_one_image(registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path) -> None:
    made = serve_platforms(registry, tmp_path)
    name = f"{proxy.host}/a/many:1"
    first = api.pull_image(peer.store, name, platform="arm64", options=peer.options)
    proxy.requests.clear()
    second = api.pull_image(peer.store, name, platform="amd64", options=peer.options)
    assert second.digest == first.digest
    assert len([request for request in proxy.requests if request.is_blob]) == 2  # the config, and the layer of its own
    found = {arch: peer.store.resolve(name, f"linux/{arch}").id for arch in made}
    assert found == {arch: one.id for arch, one in made.items()}
    assert peer.store.verify() == []


@pytest.mark.parametrize("nested", [True, False])
def test_platforms_that_an_index_does_not_tell_are_looked_up(
    registry: RegistryServer, peer: Peer, tmp_path: Path, nested: bool
) -> None:
    """An index may leave them out (image-index.md, "platform"), and does for the indexes in it."""
    blobs, made, children = Blobs(), {}, []
    for architecture in ("s390x", "amd64", "arm64"):
        made[architecture] = made_image("", layer(arch=architecture), BASE, architecture=architecture)
        child = blobs.image(made[architecture], "gzip")
        platform = {"os": "linux", "architecture": architecture}
        children.append(blobs.index({**child, "platform": platform}) if nested else child)
    name = f"{registry.host}/a/many:1"
    (tmp_path / "many.tar").write_bytes(files_tar(blobs.layout(named(blobs.index(*children), name))))
    peer.store.load(tmp_path / "many.tar")
    api.push_image(peer.store, name, options=peer.options)
    second = Peer(tmp_path, "second")
    for architecture in ("arm64", "amd64"):
        pulled = api.pull_image(second.store, name, platform=architecture, options=second.options)
        assert pulled.id == made[architecture].id == second.store.resolve(name, architecture).id
    with pytest.raises(ImageNotFound, match="no matching manifest for linux/riscv64") as e:
        api.pull_image(second.store, name, platform="riscv64", options=second.options)
    assert e.value.hint == "there is linux/amd64, linux/arm64, linux/s390x: choose with --platform"
    assert second.store.verify() == []


def test_platform_that_is_not_there(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    serve_platforms(registry, tmp_path)
    serve_image(registry, tmp_path, image())
    before = listing(peer.store)
    with pytest.raises(ImageNotFound, match="no matching manifest for linux/s390x in the manifest list entries") as e:
        api.pull_image(peer.store, f"{registry.host}/a/many:1", platform="s390x", options=peer.options)
    assert e.value.hint == "there is linux/amd64, linux/arm64: choose with --platform"
    with pytest.raises(ImageNotFound, match=r"its platform \(linux/amd64\) does not match .* \(linux/s390x\)"):
        api.pull_image(peer.store, f"{registry.host}/a/b:1", platform="linux/s390x", options=peer.options)
    assert before == {} and names(peer.store) == []


# others and proxies ---------------------------------------------------------------------------------------------------
def test_several_may_pull_the_same_at_once(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    serve_image(registry, tmp_path, image())
    with ThreadPoolExecutor(3) as pool:
        name = f"{registry.host}/a/b:1"
        runs = [pool.submit(api.pull_image, peer.store, name, options=peer.options) for _ in range(3)]
        assert {run.result(60).id for run in runs} == {image().id}
    assert (names(peer.store), peer.store.verify()) == ([name], [])


def test_proxy_of_the_environment_is_used(
    registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_image(registry, tmp_path, image())
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
    name = "registry.invalid:5000/a/b:1"
    api.pull_image(peer.store, name, options=replace(peer.options, insecure=True))
    assert {request.headers["Host"] for request in proxy.requests} == {"registry.invalid:5000"}
    assert names(peer.store) == [name]


def test_proxy_is_not_used_for_this_machine(
    registry: RegistryServer, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_image(registry, tmp_path, image())
    for variable, proxy in (("HTTP_PROXY", "http://127.0.0.1:1"), ("ALL_PROXY", "none://that.can.be.used")):
        monkeypatch.setenv(variable, proxy)
    api.pull_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)


# what there is not ----------------------------------------------------------------------------------------------------
def test_tag_that_is_not_there(registry: RegistryServer, peer: Peer) -> None:
    with pytest.raises(
        RegistryError, match=f"manifest for {registry.host}/a/b:latest not found: manifest unknown"
    ) as e:
        api.pull_image(peer.store, f"{registry.host}/a/b", options=peer.options)
    assert e.value.hint == "check name and tag"


def test_registry_that_is_not_there(registry: RegistryServer, peer: Peer) -> None:
    registry.__exit__()
    with pytest.raises(RegistryError, match=f"{registry.host} cannot be reached: .*refused"):
        api.pull_image(peer.store, f"{registry.host}/a/b", options=peer.options)


def test_blob_that_the_registry_has_lost(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    serve_image(registry, tmp_path, image())
    digest = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/a/b:1"))["Layers"][1]
    registry.blob(digest).unlink()
    with pytest.raises(RegistryError, match=f"blob {digest} not found: blob unknown"):
        api.pull_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    assert (names(peer.store), peer.store.images(), peer.store.verify()) == ([], [], [])
    assert list(Path(peer.store.directory.decode()).glob("blobs/*/*")) == []


def test_search_reads_the_catalogue(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    for name in ("x/a/b:1", "x/a/c:1", "x/d:1"):
        serve_image(registry, tmp_path, image(name))

    def found(term: str, limit: int = 25) -> list[str]:
        return [match.name for match in api.search(term, limit=limit, options=peer.options)]

    assert found(f"{registry.host}/a/") == [f"{registry.host}/a/b", f"{registry.host}/a/c"]
    assert found(f"{registry.host}/") == [f"{registry.host}/{name}" for name in ("a/b", "a/c", "d")]
    assert found(f"{registry.host}/", 2) == [f"{registry.host}/{name}" for name in ("a/b", "a/c")]
    assert found(f"{registry.host}/none") == []
