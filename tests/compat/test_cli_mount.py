"""The commands on real mounts: made, listed, used, changed, committed, removed, dead, refused."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import schemas
from tests.requirements import need, requires
from tests.unit.cli_runner import PROJECT, Ran, process_of, program, refused

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]


class Place:
    """A directory with a layer, an upper's place and a mountpoint; and commands on them, as processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layer, self.upper, self.tree = path / "layer", path / "upper", path / "tree"
        (self.layer / "etc").mkdir(parents=True)
        (self.layer / "etc/motd").write_text("welcome\n")
        self.tree.mkdir()
        self.others: list[Path] = []

    def run(self, *argv: str | Path, env: dict[str, str] | None = None) -> Ran:
        return program(*argv, env=env)

    def mount(self, *argv: str | Path) -> Ran:
        ran = self.run("mount", "-l", self.layer, *argv, self.tree)
        assert (ran.status, ran.out, ran.err) == (0, b"", b"")
        return ran

    def status(self) -> schemas.Mount:
        """What `unionfs mounts --json` says of the mount."""
        found = [schemas.Mount.model_validate(entry) for entry in json.loads(self.run("mounts", "--json").out)]
        (status,) = [mount for mount in found if mount.mountpoint == str(self.tree)]
        return status

    def another_tree(self) -> Path:
        self.others.append(self.path / f"tree{len(self.others)}")
        self.others[-1].mkdir()
        return self.others[-1]


def is_mounted(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for tree in (made.tree, *made.others):
        if is_mounted(tree):
            made.run("umount", "--lazy", tree)
    assert not is_mounted(made.tree)


def test_the_mount_can_be_used_when_the_command_returns(place: Place) -> None:
    place.mount("-u", place.upper)
    assert (place.tree / "etc/motd").read_text() == "welcome\n"
    (place.tree / "etc/motd").write_text("new\n")
    ran = place.run("diff", place.tree)
    assert (ran.status, ran.lines) == (0, ["C /etc", "C /etc/motd"])
    ran = place.run("commit", place.tree, "-o", place.path / "layer.tar")
    assert ran.status == 0 and ran.lines[0].startswith("sha256:")
    ran = place.run("umount", place.tree)
    assert (ran.status, ran.out, ran.err) == (0, b"", b"")
    assert not is_mounted(place.tree) and (place.upper / "etc/motd").read_text() == "new\n"
    assert (place.layer / "etc/motd").read_text() == "welcome\n"


def test_mount_by_options_as_mount8_has_them(place: Place) -> None:
    options = f"lowerdir={place.layer},upperdir={place.upper},workdir={place.path / 'desk'},volatile"
    ran = place.run("mount", "-o", options, place.tree)
    assert (ran.status, ran.err) == (0, b"")
    status = place.status()
    assert (status.work, status.options) == (str(place.path / "desk"), {"volatile": None})


def test_mounts_tells_what_is_mounted(place: Place) -> None:
    place.mount("-u", place.upper)
    status = place.status()
    assert (status.state, status.layers, status.upper) == ("live", [str(place.layer)], str(place.upper))
    assert status.work == f"{place.upper}.work" and status.transport == "devfuse" and not status.read_only
    assert status.statistics and status.pid is not None and Path(f"/proc/{status.pid}").is_dir()
    assert f"{place.tree}\tlive\t{place.layer}\t{place.upper}" in place.run("mounts").lines


def test_without_an_upper_nothing_can_be_changed(place: Place) -> None:
    place.mount()
    with pytest.raises(OSError, match="Read-only"):
        (place.tree / "new").touch()
    refused(place.run("diff", place.tree), 1, f"the mount on {place.tree} has no upper", "no changes")


def test_read_only_shows_the_upper_and_leaves_it(place: Place) -> None:
    place.upper.mkdir()
    (place.upper / "shown").touch()
    place.mount("-u", place.upper, "--read-only")
    assert sorted(os.listdir(place.tree)) == ["etc", "shown"]
    with pytest.raises(OSError, match="Read-only"):
        (place.tree / "new").touch()
    assert place.status().read_only
    assert place.run("diff", place.tree).lines == ["A /shown"]


def test_ephemeral_changes_vanish_at_unmount(place: Place) -> None:
    place.mount("--ephemeral")
    (place.tree / "new").write_text("x")
    upper = place.status().upper
    assert upper is not None and Path(upper, "new").read_text() == "x"
    assert place.run("umount", place.tree).status == 0
    assert not Path(upper).parent.exists()


def test_ephemeral_changes_of_a_killed_daemon_vanish_at_unmount_too(place: Place) -> None:
    place.mount("--ephemeral")
    status = place.status()
    assert status.pid is not None and status.upper is not None
    kill(status.pid)
    assert place.run("umount", place.tree).status == 0
    assert not Path(status.upper).parent.exists()


def kill(pid: int) -> None:
    """SIGKILL a daemon, and wait until it is gone."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000)
    os.close(pidfd)


def test_a_dead_mount_is_explained_and_can_be_removed(place: Place) -> None:
    place.mount("-u", place.upper)
    (place.tree / "kept").write_text("kept")
    pid = place.status().pid
    assert pid is not None
    kill(pid)
    with pytest.raises(OSError) as caught:
        os.listdir(place.tree)
    assert caught.value.errno == 107  # ENOTCONN
    assert place.status().state == "dead"
    hint = f"unionfs umount {place.tree}"
    refused(place.run("mount", "-l", place.layer, place.tree), 1, f"a dead mount is on {place.tree}", hint)
    refused(place.run("diff", place.tree), 1, f"the mount on {place.tree} is dead", hint)
    refused(place.run("apply", "/dev/null", place.tree), 1, "Transport endpoint is not connected", "unionfs umount")
    ran = place.run("umount", place.tree)
    assert (ran.status, ran.out, ran.err) == (0, b"", b"") and not is_mounted(place.tree)
    place.mount("-u", place.upper)
    assert (place.tree / "kept").read_text() == "kept"


@pytest.mark.parametrize("role", ["upper", "work directory"])
def test_an_upper_or_work_directory_in_use_is_refused(place: Place, role: str) -> None:
    place.mount("-u", place.upper)
    other = place.another_tree()
    used = ("-u", place.upper) if role == "upper" else ("-u", place.path / "other", "-w", f"{place.upper}.work")
    ran = place.run("mount", "-l", place.layer, *used, other)
    refused(ran, 1, f"is in use by unionfs mount on {place.tree}", "unmount that first")
    assert role in ran.errors[0] and not is_mounted(other)


def test_a_mountpoint_in_use_is_refused(place: Place) -> None:
    place.mount()
    ran = place.run("mount", "-l", place.layer, place.tree)
    refused(ran, 1, f"mountpoint {place.tree} is busy", f"unionfs umount {place.tree}")


def test_a_busy_mount_stays_until_lazily_unmounted(place: Place) -> None:
    place.mount()
    with open(place.tree / "etc/motd") as file:
        refused(place.run("umount", place.tree), 1, f"{place.tree} is busy", "--lazy")
        assert place.run("umount", "--lazy", place.tree).status == 0
        assert not is_mounted(place.tree) and file.read() == "welcome\n"


def test_a_mountpoint_that_is_one_of_its_layers(place: Place) -> None:
    ran = place.run("mount", "-l", place.layer, "-u", place.upper, "--nonempty", place.layer)
    place.others.append(place.layer)
    assert (ran.status, ran.err) == (0, b"")
    (place.layer / "etc/new").write_text("x")
    assert sorted(os.listdir(place.layer / "etc")) == ["motd", "new"]
    refused(place.run("diff", place.layer), 1, f"{place.layer}, of which the mount", "unmount it first")
    assert place.run("umount", place.layer).status == 0
    assert os.listdir(place.layer / "etc") == ["motd"]


@requires("root", "libfuse")
def test_fusepy_is_the_other_transport(place: Place) -> None:
    place.mount("--transport", "fusepy", "-u", place.upper)
    assert (place.tree / "etc/motd").read_text() == "welcome\n" and place.status().transport == "fusepy"
    (place.tree / "new").write_text("x")
    assert place.run("umount", place.tree).status == 0 and (place.upper / "new").read_text() == "x"


def test_foreground_stays_until_a_signal_and_ends_with_0(place: Place) -> None:
    argv: list[str | Path] = [*process_of(), "mount", "-f", "-l", place.layer, place.tree]
    with subprocess.Popen(argv, cwd=PROJECT, stderr=subprocess.PIPE) as process:
        while not is_mounted(place.tree):
            assert process.poll() is None
        assert (place.tree / "etc/motd").read_text() == "welcome\n"
        process.terminate()
        assert process.wait(20) == 0
        assert process.stderr is not None and process.stderr.read() == b""
    assert not is_mounted(place.tree)


@requires("root")
def test_debug_stays_and_logs_every_request_with_its_answer(place: Place) -> None:
    argv: list[str | Path] = [*process_of(), "mount", "--debug", "-l", place.layer, place.tree]
    with subprocess.Popen(argv, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as process:
        while not is_mounted(place.tree):
            assert process.poll() is None
        assert not (place.tree / "nowhere").exists()
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert any("LOOKUP" in line and "nowhere" in line and "->" in line for line in log.splitlines())


# what the machine refuses: made in a mount namespace of its own ------------------------------------------------------
def in_namespace(script: str, *argv: str | Path) -> Ran:
    """Run `unionfs ARGV` after the shell commands of `script`, in a private mount namespace."""
    need("root", "unshare")
    command = f'{script}\nexec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-ec", command, "bash", *process_of(), *argv],
        cwd=PROJECT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_no_fuse_device(place: Place) -> None:
    ran = in_namespace("mount --bind /dev/null /dev/fuse", "mount", "-l", place.layer, place.tree)
    refused(ran, 1, "")
    ran = in_namespace("mount -t tmpfs none /dev", "mount", "-l", place.layer, place.tree)
    refused(ran, 1, "/dev/fuse cannot be opened: No such file or directory", "modprobe fuse")


def test_no_permission_on_the_fuse_device(place: Place) -> None:
    # Root without CAP_DAC_OVERRIDE stands for a user, who may not be able to read this source tree at all.
    node = place.path / "fuse"
    script = f"mknod -m 0 {node} c 10 229; mount --bind {node} /dev/fuse"
    setpriv = "setpriv --bounding-set -dac_override,-dac_read_search"
    ran = in_namespace(f'{script}\nset -- {setpriv} "$@"', "mount", "-l", place.layer, place.tree)
    refused(ran, 1, "no permission to open /dev/fuse", "chmod 666 /dev/fuse")


@requires("root", "libfuse")
def test_libfuse_missing(place: Place) -> None:
    library = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = {os.path.realpath(line.split()[-1]) for line in library.splitlines() if "libfuse.so.2" in line}
    script = "\n".join(f"mount --bind /dev/null {path}" for path in paths)
    ran = in_namespace(script, "mount", "--transport", "fusepy", "-l", place.layer, place.tree)
    refused(ran, 1, "libfuse 2 not found", "libfuse2")


# unionfs-mount -------------------------------------------------------------------------------------------------------
def helper(*argv: str | Path) -> Ran:
    return program(*argv, module="unionfs.api.mount_helper")


def test_the_mount_program_as_podman_calls_it(place: Place) -> None:
    place.upper.mkdir()
    (place.path / "work").mkdir()
    options = f"lowerdir={place.layer},upperdir={place.upper},workdir={place.path / 'work'},,volatile,"
    ran = helper("-o", options, place.tree)
    assert (ran.status, ran.out, ran.err) == (0, b"", b"")
    (place.tree / "new").touch()
    assert (place.upper / "new").exists()


def test_the_mount_program_with_an_selinux_label(place: Place) -> None:
    """As containers/storage writes it: in quotes, since it holds a comma."""
    label = 'context="system_u:object_r:container_file_t:s0:c1,c2"'
    ran = helper("-o", f"lowerdir={place.layer},nodev,{label}", place.tree)
    assert (ran.status, (place.tree / "etc/motd").read_text()) == (0, "welcome\n"), ran
    with open("/proc/filesystems") as file:
        if "selinuxfs" not in file.read():
            assert ran.errors == [f"unionfs-mount: no SELinux, so no {label.replace(chr(34), '')}"]


def test_the_mount_program_leaves_nobody_waiting_for_its_stderr(place: Place) -> None:
    """podman's and buildah's is a pipe, of which they read all: here communicate() does."""
    for directory in (place.upper, place.path / "work"):
        directory.mkdir()
    options = f"lowerdir={place.layer},upperdir={place.upper},workdir={place.path / 'work'}"
    start = "import sys; from unionfs.api.mount_helper import main; sys.exit(main())"
    argv = [sys.executable, "-c", start, "-o", options, str(place.tree)]
    process = subprocess.Popen(
        argv, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert place.status().state == "live"


@pytest.mark.parametrize("module", ["cli", "unionfs.api.mount_helper"])
def test_who_has_no_standard_streams_gets_a_mount_and_waits_for_nothing_else(place: Place, module: str) -> None:
    mounting = ("mount", "-l", place.layer) if module == "cli" else ("-o", f"ro,lowerdir={place.layer}")
    argv = [*process_of(module), *mounting, place.tree]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], cwd=PROJECT, timeout=20, check=False)
    assert done.returncode == 0 and (place.tree / "etc/motd").read_text() == "welcome\n"


def test_the_mount_program_as_mount8_calls_it(place: Place) -> None:
    ran = helper("source", place.tree, "-n", "-o", f"ro,lowerdir={place.layer}")
    assert (ran.status, ran.err) == (0, b"") and (place.tree / "etc/motd").exists()
    line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {place.tree} " in line)
    assert line.split()[0] == "source" and line.split()[2].startswith("fuse")


def test_the_mount_program_says_its_version_and_its_errors(place: Place) -> None:
    assert helper("--version").out.startswith(b"unionfs-mount: version ")
    assert helper("--help").out.startswith(b"usage: unionfs-mount")
    ran = helper("-x", "-o", f"lowerdir={place.path / 'no'}", place.tree)
    assert (ran.status, ran.out) == (1, b"")
    assert ran.errors[0] == "unionfs-mount: unknown argument ignored: -x"
    assert ran.errors[1] == f"unionfs-mount: layer {place.path / 'no'} does not exist"


# demo ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mounted", [True, False])
def test_the_demo_shows_it_all_and_leaves_nothing(place: Place, mounted: bool) -> None:
    home = place.path / "tmp"
    home.mkdir()
    ran = place.run("demo", "--mount" if mounted else "--no-mount", env={"TMPDIR": str(home)})
    text = "\n".join(ran.lines)
    assert (ran.status, ran.err) == (0, b"")
    assert ("mounted by devfuse" in text) == mounted and ("in process" in text) != mounted
    for said in ("a whiteout", "D /etc/passwd", "diff_id sha256:", "the same bytes", "untouched", "equal to the tree"):
        assert said in text
    if shutil.which("tar"):
        assert "etc/.wh.passwd" in text
    assert list(home.iterdir()) == []
