"""`unionfs image pull --lazy`, against docker-registry and a proxy that counts bytes and damages them: mounts of images
whose data comes when it is read."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.faulty_proxy import Fault, FaultyProxy, Request
from tests.compat.image_peers import skopeo
from tests.compat.image_rig import Images
from tests.compat.lazy_rig import blob_bytes, serve_layers
from tests.compat.registry_rig import RegistryServer
from tests.requirements import requires
from tests.unit.cli_runner import refused
from tests.unit.image_rig import files_tar, layer, made_image, oci_files
from tests.unit.lazy_rig import LazyLayer, Member, estargz, lazy_image, plain_layer, with_another_toc, zstd_chunked
from unionfs.changeset.tar_format import DIR, LINK, SYMLINK

pytestmark = [pytest.mark.needs_fuse, requires("fuse", "docker-registry", "skopeo")]

NOISE = random.Random(1).randbytes(24 << 20)
FILES = [
    Member("etc", type=DIR, mode=0o755),
    Member("etc/motd", b"hello\n"),
    Member("etc/link", type=SYMLINK, link="motd"),
    Member("etc/hard", type=LINK, link="etc/motd"),
    Member("big", NOISE[: 6 << 20]),
]
FORMATS: dict[str, Callable[[list[Member]], LazyLayer]] = {"estargz": estargz, "zstd:chunked": zstd_chunked}


@pytest.fixture
def images(tmp_path: Path) -> Images:
    (tmp_path / "cli").mkdir()
    return Images(tmp_path / "cli", env={"XDG_RUNTIME_DIR": str(tmp_path / "cli/run")})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "daemon.log"


def pull(images: Images, proxy: FaultyProxy, *options: str) -> str:
    """The name it has."""
    images.run("image", "pull", "-q", *(options or ("--lazy",)), f"{proxy.host}/a/b:1")
    return f"{proxy.host}/a/b:1"


def errno_of(read: Callable[[], object]) -> int:
    with pytest.raises(OSError) as caught:
        read()
    return caught.value.errno or 0


@pytest.mark.parametrize("format", FORMATS)
def test_a_lazy_image_is_what_a_whole_one_is(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path, format: str
) -> None:
    serve_layers(registry, tmp_path, FORMATS[format](FILES))
    name = pull(images, proxy)

    def look(mnt: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in sorted(mnt.rglob("*")):
            st = path.lstat()
            data = path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(mnt))] = (st.st_mode, st.st_size, st.st_mtime_ns, st.st_nlink, st.st_ino, data)
        return {name: what for name, what in found.items() if "landmark" not in name and "index.json" not in name}

    with images.mounted("--image", name, "--read-only") as mnt:
        lazily = look(mnt)
        assert sorted(os.listdir(mnt)) == ["big", "etc"]
    images.run("image", "pull", "-q", name)
    with images.mounted("--image", name, "--read-only") as mnt:
        assert look(mnt) == lazily
    assert images.run("image", "verify") == ""


def test_one_file_of_a_large_image_moves_little(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    files = [
        Member(f"data/{at}", NOISE[at << 20 :][: 6 << 20]) for at in range(16)
    ]  # 96 MiB that no compression shrinks
    made = estargz([*FILES[:2], *files])
    serve_layers(registry, tmp_path, made)
    name = pull(images, proxy)
    with images.mounted("--image", name, "--read-only") as mnt:
        assert (mnt / "etc/motd").read_bytes() == b"hello\n"
        assert len(os.listdir(mnt / "data")) == 16
        assert (mnt / "data/3").stat().st_size == 6 << 20
        (counted,) = [one for one in json.loads(images.run("mounts", "--json")) if one["mountpoint"] == str(mnt)]
        assert 6 < counted["statistics"]["fetched_bytes"] < 1000
    assert blob_bytes(proxy) < len(made.blob) // 100
    assert len(made.blob) > 96 << 20


def test_data_that_has_come_is_not_asked_for_again(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, zstd_chunked(FILES))
    name = pull(images, proxy)
    for _ in range(2):
        with images.mounted("--image", name, "--read-only") as mnt:
            assert (mnt / "big").read_bytes() == FILES[-1].data
        if not _:
            proxy.forget()
    assert proxy.asked == []


def test_prefetched_files_come_with_the_pull_and_landmarks_are_hidden(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz([FILES[0], FILES[1], FILES[-1]], prefetched=2))
    name = pull(images, proxy)
    proxy.forget()
    with images.mounted("--image", name, "--read-only") as mnt:
        assert (mnt / "etc/motd").read_bytes() == b"hello\n"
        assert proxy.asked == []
        assert sorted(os.listdir(mnt)) == ["big", "etc"]
        assert not (mnt / ".prefetch.landmark").exists()
        assert (mnt / "big").read_bytes() == FILES[-1].data
        assert proxy.asked != []


def test_layers_that_cannot_be_trusted_in_parts_come_whole(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    trusted = estargz([Member("a", b"a" * 1000)])
    unnamed = estargz([Member("b", b"b" * 1000)])
    unnamed.annotations.clear()
    false = estargz([Member("c", b"c" * 1000)])
    false.annotations["containerd.io/snapshot/stargz/toc.digest"] = "sha256:" + "0" * 64
    plain = plain_layer(layer(d="d" * 1000))
    serve_layers(registry, tmp_path, trusted, unnamed, false, plain)
    said = images.run("image", "pull", "--lazy", f"{proxy.host}/a/b:1")
    assert said.count("Ready to be read") == 1
    assert said.count("Not in parts: it has no table of contents that its manifest vouches for") == 2
    assert said.count("Not in parts: its TOC is not what the manifest says") == 1
    assert said.count("Pull complete") == 3
    faults = json.loads(images.run("image", "verify", "--json"))
    assert [fault["absent"] for fault in faults] == [True]
    proxy.forget()
    with images.mounted("--image", f"{proxy.host}/a/b:1", "--read-only") as mnt:
        assert [(mnt / name).read_text() for name in "bcd"] == [name * 1000 for name in "bcd"]
        assert proxy.asked == []
        assert (mnt / "a").read_text() == "a" * 1000
        assert proxy.asked != []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(without=("Range",)), "gives no parts of it"),
        (Fault(headers={"Content-Range": "bytes 7-9/10"}), "another range than"),
    ],
)
def test_a_registry_that_gives_no_parts_gives_all(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path, fault: Fault, words: str
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES))
    proxy.plan = lambda request: fault if "Range" in request.headers else None
    said = images.run("image", "pull", "--lazy", f"{proxy.host}/a/b:1")
    assert words in said and "Pull complete" in said
    assert images.run("image", "verify") == ""


def test_a_note_that_could_not_be_read_is_not_written(images: Images, registry: RegistryServer, tmp_path: Path) -> None:
    """Where the credentials are is noted as text."""
    serve_layers(registry, tmp_path, estargz(FILES))
    authfile = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    authfile.write_text("{}")
    said = images.run("image", "pull", "--lazy", "--authfile", authfile, f"{registry.host}/a/b:1")
    assert "Not in parts: the name of its auth file or certificates is no UTF-8" in said
    assert images.run("image", "verify") == ""


def test_a_wrong_chunk_is_an_error_and_is_not_kept(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path, log: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES, chunk=1 << 20))
    name = pull(images, proxy)
    proxy.plan = lambda request: Fault(corrupt=5000) if request.is_blob else None
    with images.mounted("--image", name, "--read-only", "--log-file", log) as mnt:
        assert errno_of((mnt / "big").read_bytes) == errno.EIO
        assert "is not what its digest says" in log.read_text() or "cannot be unpacked" in log.read_text()
        proxy.plan = lambda request: None
        assert (mnt / "big").read_bytes() == FILES[-1].data


def test_damage_on_the_way_is_repaired_by_asking_once_more(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, zstd_chunked(FILES))
    name = pull(images, proxy)
    damaged: list[Request] = []

    def once(request: Request) -> Fault | None:
        if request.is_blob and not damaged:
            damaged.append(request)
            return Fault(corrupt=100)
        return None

    proxy.plan = once
    with images.mounted("--image", name, "--read-only") as mnt:
        assert (mnt / "big").read_bytes() == FILES[-1].data
    assert damaged


def test_connections_that_are_cut_go_on(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES, chunk=1 << 20))
    name = pull(images, proxy)
    proxy.forget()
    proxy.plan = lambda request: Fault(cut=100_000) if request.is_blob and request.seen % 2 else None
    with images.mounted("--image", name, "--read-only") as mnt:
        assert (mnt / "big").read_bytes() == FILES[-1].data


def test_a_registry_that_goes_and_comes_back(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path, log: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES))
    name = pull(images, proxy)
    gone = True
    proxy.plan = lambda request: Fault(status=404) if gone else None
    with images.mounted("--image", name, "--read-only", "--log-file", log) as mnt:
        assert errno_of((mnt / "etc/motd").read_bytes) == errno.EIO
        assert os.listdir(mnt / "etc") and os.readlink(mnt / "etc/link") == "motd"
        assert "its data does not come" in log.read_text()
        gone = False
        assert (mnt / "etc/hard").read_bytes() == b"hello\n"


def test_an_image_is_fetched_in_full_while_it_is_mounted(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES), zstd_chunked([Member("opt", NOISE[:100_000])]))
    name = pull(images, proxy)
    with images.mounted("--image", name, "--read-only") as mnt:
        assert (mnt / "etc/motd").read_bytes() == b"hello\n"
        assert images.run("image", "fetch", name).splitlines()[-1] == f"Status: Fetched the rest of {name}"
        assert images.run("image", "verify") == ""
        proxy.forget()
        assert (mnt / "big").read_bytes() == FILES[-1].data
        assert (mnt / "opt").read_bytes() == NOISE[:100_000]
        assert proxy.asked == []
    assert images.run("image", "fetch", name) == f"Status: Nothing is missing of {name}"
    assert os.listdir(images.directory / "cache/lazy") == []


def test_what_needs_whole_layers_fetches_them(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES[:2]))
    for at, verb in enumerate(
        (("save", "-o", tmp_path / "saved.tar"), ("export", "-o", tmp_path / "root.tar"), ("push",))
    ):
        name = pull(images, proxy)
        assert "not fetched yet" in images.run("image", "verify")
        assert images.run("image", "ls", "-q") != ""
        images.call("image", verb[0], *verb[1:], name)
        assert images.run("image", "verify") == "", verb
        images.run("image", "rm", name)
        assert os.listdir(images.directory / "cache/lazy") == [] and os.listdir(images.store / ".unionfs/lazy") == [], (
            at
        )


def test_what_needs_whole_layers_says_so_where_they_cannot_be_had(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES[:2]))
    name = pull(images, proxy)
    proxy.plan = lambda request: Fault(status=404)
    for verb in (
        ("save", "-o", tmp_path / "saved.tar"),
        ("push",),
        ("export", "-o", tmp_path / "saved.tar"),
        ("fetch",),
    ):
        refused(images.call("image", *verb, name), 1, "a layer of it was not fetched yet, and cannot be", "check name")
    assert not (tmp_path / "saved.tar").exists()


def test_a_mount_is_committed_after_what_is_below_it_has_come(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES))
    name = pull(images, proxy)
    with images.mounted("--image", name) as mnt:
        with open(mnt / "etc/motd", "a") as file:  # copies it up
            file.write("more\n")
        with open(mnt / "big", "r+b") as large:
            large.write(b"new")
        os.chmod(mnt / "etc/hard", 0o600)
        images.run("commit", mnt, "new:1")
    assert images.run("image", "verify") == ""
    with images.mounted("--image", "new:1", "--read-only") as mnt:
        assert (mnt / "etc/motd").read_bytes() == b"hello\nmore\n"
        assert (mnt / "big").read_bytes() == b"new" + FILES[-1].data[3:]


def test_a_cache_that_was_removed_is_filled_anew(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, zstd_chunked(FILES[:2]))
    name = pull(images, proxy)
    subprocess.run(["rm", "-r", images.directory / "cache"], check=True)
    with images.mounted("--image", name, "--read-only") as mnt:
        assert (mnt / "etc/motd").read_bytes() == b"hello\n"
    subprocess.run(["rm", "-r", images.directory / "cache"], check=True)
    proxy.plan = lambda request: Fault(status=404)
    (images.directory / "other").mkdir()
    refused(images.call("mount", "--image", name, "--read-only", images.directory / "other"), 1, "was not fetched yet")


def test_a_reader_that_is_killed_does_not_wait_and_keeps_nobody_waiting(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES))
    name = pull(images, proxy)
    silence, asked = threading.Event(), threading.Event()

    def stall(request: Request) -> Fault | None:
        if not request.is_blob:
            return None
        asked.set()
        return Fault(wait=silence)

    proxy.plan = stall
    try:
        with images.mounted("--image", name) as mnt:
            readers = [subprocess.Popen(["cat", mnt / "big"], stdout=subprocess.DEVNULL) for _ in range(12)]
            writer = subprocess.Popen([sys.executable, "-c", f"open({str(mnt / 'big')!r}, 'r+b')"])
            assert asked.wait(30)
            # The daemon goes on: names, attributes, new files, and their being flushed.
            (mnt / "etc/new").write_text("new")
            with open(mnt / "etc/new") as file:
                os.fsync(file.fileno())
            assert os.listdir(mnt / "etc")
            for process in (*readers, writer):
                process.send_signal(signal.SIGKILL)
                assert process.wait(30) == -signal.SIGKILL
            silence.set()
            assert (mnt / "big").read_bytes() == FILES[-1].data
    finally:
        silence.set()


def test_a_daemon_that_is_killed_leaves_what_is_right(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, zstd_chunked(FILES))
    name = pull(images, proxy)
    mnt = images.directory / "killed"
    mnt.mkdir()
    images.run("mount", "--image", name, "--read-only", mnt)
    try:
        (pid,) = [one["pid"] for one in json.loads(images.run("mounts", "--json")) if one["mountpoint"] == str(mnt)]
        halfway = threading.Event()

        def kill(request: Request) -> None:
            if request.is_blob and request.seen == 3 and not halfway.is_set():
                halfway.set()
                os.kill(pid, signal.SIGKILL)

        proxy.forget()
        proxy.plan = kill
        assert errno_of((mnt / "big").read_bytes) in (errno.ENOTCONN, errno.ECONNABORTED)
        assert halfway.is_set()
    finally:
        subprocess.run(["umount", "-l", mnt], check=True)
    proxy.plan = lambda request: None
    with images.mounted("--image", name, "--read-only") as again:
        assert (again / "big").read_bytes() == FILES[-1].data


@pytest.mark.parametrize(
    "options", [("--transport", "fusepy"), ("-o", "uidmapping=0:0:65536")], ids=["fusepy", "mapped"]
)
def test_other_ways_to_mount(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path, options: tuple[str, ...]
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES))
    name = pull(images, proxy)
    with images.mounted("--image", name, *options) as mnt:
        assert (mnt / "etc/motd").read_bytes() == b"hello\n"
        with open(mnt / "big", "r+b") as file:
            file.write(b"new")
        assert (mnt / "big").read_bytes() == b"new" + FILES[-1].data[3:]


def test_credentials_are_those_of_the_moment(images: Images, tmp_path: Path) -> None:
    with RegistryServer(tmp_path, password=True) as registry, FaultyProxy(registry.host) as proxy:
        login = ("login", "-u", "user", "--password-stdin", proxy.host)
        _, archive = lazy_image("x/a/b:1", estargz(FILES))
        (tmp_path / "lazy.tar").write_bytes(archive)
        skopeo(
            "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", "user:secret",
            f"oci-archive:{tmp_path}/lazy.tar:x/a/b:1", f"docker://{registry.host}/a/b:1",
        )  # fmt: skip
        assert images.call(*login, stdin=b"secret\n").status == 0
        name = pull(images, proxy)
        images.run("logout", proxy.host)
        with images.mounted("--image", name, "--read-only") as mnt:
            assert errno_of((mnt / "etc/motd").read_bytes) == errno.EIO
            assert images.call(*login, stdin=b"secret\n").status == 0
            assert (mnt / "etc/motd").read_bytes() == b"hello\n"


def test_what_nothing_needs_is_pruned(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """Also the note of a layer whose image another tool has taken away."""
    serve_layers(registry, tmp_path, estargz(FILES[:2]))
    pull(images, proxy)
    (images.store / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    images.run("image", "prune", "-f")
    assert os.listdir(images.store / ".unionfs/lazy") == os.listdir(images.directory / "cache/lazy") == []


@pytest.mark.parametrize("first", ["true", "false"])
def test_no_image_decides_what_another_shows(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path, first: str
) -> None:
    """Of one blob two manifests name two tables of contents; whoever has the second word gets it whole."""
    layer = zstd_chunked([Member("secret", b"true"), Member("shown", b"false")])
    swapped = {"version": 1, "entries": [entry | {"name": name} for entry, name in
               zip(layer.toc["entries"], ("shown", "secret"), strict=True)]}  # fmt: skip
    true, false = with_another_toc(layer, swapped)
    serve_layers(registry, tmp_path, true, name="true:1")
    serve_layers(registry, tmp_path, false, name="false:1")
    second = {"true": "false", "false": "true"}[first]
    assert "Ready to be read" in images.run("image", "pull", "--lazy", f"{proxy.host}/{first}:1")
    said = images.run("image", "pull", "--lazy", f"{proxy.host}/{second}:1")
    assert "another image says that it has another table of contents" in said
    for name in (first, second):
        with images.mounted("--image", f"{proxy.host}/{name}:1", "--read-only") as mnt:
            assert (mnt / "secret").read_bytes() == b"true"
    assert images.run("image", "verify") == ""
    assert os.listdir(images.directory / "cache/lazy") == []


def test_a_note_that_others_could_have_written_is_not_followed(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES[:2]))
    name = pull(images, proxy)
    (note,) = (images.store / ".unionfs/lazy").iterdir()
    note.chmod(0o666)
    proxy.forget()
    mnt = images.directory / "mnt"
    mnt.mkdir()
    refused(images.call("mount", "--image", name, "--read-only", mnt), 1, "is missing from the store")
    assert proxy.asked == []


def test_two_mounts_share_what_comes(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    serve_layers(registry, tmp_path, estargz(FILES, chunk=1 << 20))
    name = pull(images, proxy)
    other = images.directory / "other"
    other.mkdir()
    with images.mounted("--image", name, "--read-only") as mnt:
        images.run("mount", "--image", name, "--read-only", other)
        try:
            assert (mnt / "big").read_bytes() == FILES[-1].data
            proxy.forget()
            assert (other / "big").read_bytes() == FILES[-1].data
            assert proxy.asked == []
        finally:
            images.run("umount", other)


def test_what_skopeo_makes_is_read(
    images: Images, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """Another writer of zstd:chunked; chunks of its own choice, holes among them."""
    data = NOISE[:700_000] + bytes(300_000) + NOISE[:70_000]
    tar = layer(etc__motd="hello", big=data)
    path = tmp_path / "plain.tar"
    path.write_bytes(files_tar(oci_files([made_image("x/a/b:1", tar)], "")))
    skopeo(
        "copy", "-q", "--dest-tls-verify=false", "--dest-compress-format", "zstd:chunked",
        f"oci-archive:{path}:x/a/b:1", f"docker://{registry.host}/a/b:1",
    )  # fmt: skip
    assert "Ready to be read" in images.run("image", "pull", "--lazy", f"{proxy.host}/a/b:1")
    with images.mounted("--image", f"{proxy.host}/a/b:1", "--read-only") as mnt:
        assert (mnt / "etc/motd").read_text() == "hello"
        assert (mnt / "big").read_bytes() == data
    images.run("image", "fetch", "-q", f"{proxy.host}/a/b:1")
    assert images.run("image", "verify") == ""
