"""Pushing to Debian's docker-registry, read back by skopeo: what arrives, and what is not sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compat.faulty_proxy import Fault, FaultyProxy, Request
from tests.compat.image_peers import skopeo
from tests.compat.registry_rig import Peer, RegistryServer
from tests.compat.test_registry_pull import BASE, TOP, image, serve_platforms
from tests.requirements import requires
from tests.unit.image_rig import layer, sha256
from unionfs import api
from unionfs.errors import ImageError, ImageNotFound, RegistryError
from unionfs.image.registry import upload

pytestmark = requires("docker-registry", "skopeo")


def uploads(proxy: FaultyProxy) -> list[str]:
    """The uploads that were begun, by repository."""
    return [request.path.split("/")[3] for request in proxy.requests if request.method == "POST"]


@pytest.mark.parametrize("compression", ["gzip", ""])
def test_skopeo_reads_what_was_pushed(registry: RegistryServer, peer: Peer, tmp_path: Path, compression: str) -> None:
    peer.load(image(f"{registry.host}/a/b:1"), compression=compression)
    pushed = api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    there = peer.store.resolve(f"{registry.host}/a/b:1")
    raw = skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{registry.host}/a/b:1").encode()
    assert (raw, sha256(raw), len(raw)) == (there.manifest_bytes, pushed.digest, pushed.size)
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{registry.host}/a/b:1", f"oci:{tmp_path}/copy:it")
    copied = Peer(tmp_path, "second").store
    copied.load(tmp_path / "copy")
    assert copied.resolve("it").id == there.id
    assert copied.verify() == []


def test_image_comes_back_the_same(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    peer.load(image(f"{registry.host}/a/b:1"))
    pushed = api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    second = Peer(tmp_path, "second")
    pulled = api.pull_image(second.store, f"{registry.host}/a/b:1", options=second.options)
    assert pulled.digest == pushed.digest
    assert second.store.resolve(f"{registry.host}/a/b:1") == peer.store.resolve(f"{registry.host}/a/b:1")


def test_what_is_there_is_not_sent_again(registry: RegistryServer, proxy: FaultyProxy, peer: Peer) -> None:
    peer.load(image(f"{proxy.host}/a/b:1"))
    api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    assert len(uploads(proxy)) == 3
    proxy.requests.clear()
    told: list[api.Transfer] = []
    peer.store.tag(f"{proxy.host}/a/b:1", f"{proxy.host}/a/b:2")
    api.push_image(peer.store, f"{proxy.host}/a/b:2", options=peer.options, report=told.append)
    assert [request.method for request in proxy.requests if request.method not in ("GET", "HEAD")] == ["PUT"]
    assert [transfer.status for transfer in told if transfer.id][2:] == ["Layer already exists"] * 2


def test_only_the_new_layer_of_a_child_is_sent(registry: RegistryServer, proxy: FaultyProxy, peer: Peer) -> None:
    peer.load(image(f"{proxy.host}/a/b:1", BASE), image(f"{proxy.host}/a/b:2", BASE, TOP))
    api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    proxy.requests.clear()
    api.push_image(peer.store, f"{proxy.host}/a/b:2", options=peer.options)
    assert len(uploads(proxy)) == 2  # the layer, and the config


def test_layers_of_another_repository_are_mounted(registry: RegistryServer, proxy: FaultyProxy, peer: Peer) -> None:
    peer.load(image(f"{proxy.host}/a/b:1"))
    api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    peer.store.tag(f"{proxy.host}/a/b:1", f"{proxy.host}/c:1")
    proxy.requests.clear()
    told: list[api.Transfer] = []
    api.push_image(peer.store, f"{proxy.host}/c:1", options=peer.options, report=told.append)
    assert {transfer.status for transfer in told if transfer.id} == {"Preparing", "Mounted from a/b"}
    assert sum("mount=sha256" in request.path and "from=a%2Fb" in request.path for request in proxy.requests) == 3
    assert [request.method for request in proxy.requests].count("PUT") == 1  # the manifest
    skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/c:1")


def test_name_in_the_store_that_the_registry_never_saw(registry: RegistryServer, peer: Peer) -> None:
    peer.load(image(f"{registry.host}/a/b:1"))
    peer.store.tag(f"{registry.host}/a/b:1", f"{registry.host}/never:1")
    api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/a/b:1")


def test_manifest_is_the_last_to_come(registry: RegistryServer, proxy: FaultyProxy, peer: Peer) -> None:
    peer.load(image(f"{proxy.host}/a/b:1"))
    api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    assert proxy.asked[-1] == "PUT /v2/a/b/manifests/1"
    assert sum("manifests" in line for line in proxy.asked) == 1


# indexes --------------------------------------------------------------------------------------------------------------
def test_whole_index_is_pushed_with_its_children(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    serve_platforms(registry, tmp_path)
    skopeo(
        "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{registry.host}/a/many:1",
        f"oci-archive:{tmp_path}/many.tar:{registry.host}/b/many:1",
    )  # fmt: skip
    peer.store.load(tmp_path / "many.tar")
    pushed = api.push_image(peer.store, f"{registry.host}/b/many:1", options=peer.options)
    raw = json.loads(skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{registry.host}/b/many:1"))
    assert (len(raw["manifests"]), pushed.partial) == (3, None)
    second = Peer(tmp_path, "second")
    for architecture in ("arm64", "amd64"):
        api.pull_image(second.store, f"{registry.host}/b/many:1", platform=architecture, options=second.options)


def test_one_platform_of_an_index_is_pushed_alone(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    made = serve_platforms(registry, tmp_path)
    pulled = api.pull_image(peer.store, f"{registry.host}/a/many:1", platform="arm64", options=peer.options)
    peer.store.tag(f"{registry.host}/a/many:1", f"{registry.host}/a/one:1")
    pushed = api.push_image(peer.store, f"{registry.host}/a/one:1", options=peer.options)
    assert pushed.partial == pulled.digest
    second = Peer(tmp_path, "second")
    assert api.pull_image(second.store, f"{registry.host}/a/one:1", options=second.options).id == made["arm64"].id


def test_two_platforms_of_three_need_a_choice(registry: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    made = serve_platforms(registry, tmp_path)
    for architecture in made:
        api.pull_image(peer.store, f"{registry.host}/a/many:1", platform=architecture, options=peer.options)
    peer.store.tag(f"{registry.host}/a/many:1", f"{registry.host}/a/one:1")
    with pytest.raises(ImageError, match="some platforms are here, and some are not") as e:
        api.push_image(peer.store, f"{registry.host}/a/one:1", options=peer.options)
    assert e.value.hint == "push one of them with --platform: linux/amd64, linux/arm64"
    api.push_image(peer.store, f"{registry.host}/a/one:1", platform="linux/arm64", options=peer.options)
    second = Peer(tmp_path, "second")
    assert api.pull_image(second.store, f"{registry.host}/a/one:1", options=second.options).id == made["arm64"].id


# pieces ---------------------------------------------------------------------------------------------------------------
@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of a piece, small enough for a layer to need several."""
    monkeypatch.setattr(upload, "PIECE", 300_000)
    return 300_000


def test_large_layer_goes_in_pieces(
    registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path, pieces: int
) -> None:
    peer.load(image(f"{proxy.host}/a/b:1", layer(data=bytes(range(256)) * 4000)), compression="")
    api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    sent = [request.headers.get("Content-Range") for request in proxy.requests if request.method == "PATCH"]
    assert sent == [f"{pieces * n}-{pieces * (n + 1) - 1}" for n in range(3)]
    second = Peer(tmp_path, "second")
    api.pull_image(second.store, f"{proxy.host}/a/b:1", options=second.options)


@pytest.mark.parametrize("fault", [Fault(lost=True), Fault(answer_lost=True), Fault(status=503)])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_piece_that_is_lost_is_sent_again(
    registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path, pieces: int, fault: Fault, number: int
) -> None:
    peer.load(image(f"{proxy.host}/a/b:1", layer(data=bytes(range(256)) * 4000)), compression="")
    sent: list[str] = []

    def plan(request: Request) -> Fault | None:
        size = int(request.headers.get("Content-Length") or 0)
        if request.method in ("PATCH", "PUT") and "/uploads/" in request.path and size > 10_000:
            sent.append(request.headers.get("Content-Range", ""))
            return fault if len(sent) == number else None
        return None

    proxy.plan = plan
    api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    if not fault.answer_lost:
        assert len(sent) == 5  # from where it stood
        assert sent.count(sent[number - 1]) == 2
    second = Peer(tmp_path, "second")
    api.pull_image(second.store, f"{registry.host}/a/b:1", options=second.options)


def test_layer_damaged_on_its_way_is_sent_again(registry: RegistryServer, proxy: FaultyProxy, peer: Peer) -> None:
    peer.load(image(f"{proxy.host}/a/b:1", BASE))
    target = str(peer.store.resolve(f"{proxy.host}/a/b:1").layers[0].digest).replace(":", "%3A")
    wrong = b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}'
    seen: list[str] = []

    def plan(request: Request) -> Fault | None:
        if request.method == "PUT" and target in request.path:
            seen.append(request.path)
            return Fault(status=400, body=wrong) if len(seen) == 1 else None
        return None

    proxy.plan = plan
    api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    assert len(seen) == 2 and seen[0] != seen[1]  # another upload
    skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/a/b:1")


def test_layer_damaged_in_the_store_is_refused(registry: RegistryServer, peer: Peer) -> None:
    peer.load(image(f"{registry.host}/a/b:1", BASE))
    digest = peer.store.resolve(f"{registry.host}/a/b:1").layers[0].digest
    with open(peer.store.layout.blobs.path(digest), "r+b") as file:
        file.write(b"damage")
    with pytest.raises(RegistryError, match=f"blob {digest}: .* 400 Bad Request: digest invalid") as e:
        api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
    assert e.value.hint == "damaged on its way, or in the store: unionfs image verify"


# refusals -------------------------------------------------------------------------------------------------------------
def test_registry_that_only_reads(tmp_path: Path, peer: Peer) -> None:
    with RegistryServer(tmp_path, read_only=True) as registry:
        peer.load(image(f"{registry.host}/a/b:1"))
        with pytest.raises(RegistryError, match="answered 405 Method Not Allowed") as e:
            api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
        assert e.value.hint == "it may be one that only reads"


def test_image_that_is_not_here(registry: RegistryServer, peer: Peer) -> None:
    with pytest.raises(ImageNotFound, match=f"No such image: {registry.host}/a/b:latest"):
        api.push_image(peer.store, f"{registry.host}/a/b", options=peer.options)


def test_digest_is_no_name_to_push(peer: Peer) -> None:
    with pytest.raises(ImageError, match="cannot push a digest reference"):
        api.push_image(peer.store, "localhost:1/a@sha256:" + "0" * 64, options=peer.options)


def test_failure_leaves_no_tag(registry: RegistryServer, proxy: FaultyProxy, peer: Peer, tmp_path: Path) -> None:
    peer.load(image(f"{proxy.host}/a/b:1"))
    proxy.plan = lambda request: Fault(status=500) if "uploads" in request.path else None
    with pytest.raises(RegistryError, match=f"{proxy.host} answered 500") as e:
        api.push_image(peer.store, f"{proxy.host}/a/b:1", options=peer.options)
    assert e.value.hint == "try again later"
    with pytest.raises(RegistryError, match="not found"):
        api.pull_image(Peer(tmp_path, "second").store, f"{registry.host}/a/b:1", options=peer.options)
