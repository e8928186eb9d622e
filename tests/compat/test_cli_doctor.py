"""`unionfs doctor` on this machine, on machines that lack something (mount namespaces), on what dead mounts left."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from cli import schemas
from tests.compat.test_cli_mount import Place, in_namespace, is_mounted, kill, place
from tests.requirements import requires
from tests.unit.as_user import run_as_nobody
from tests.unit.cli_runner import Ran, refused
from unionfs.api.doctor import Diagnosis, doctor

__all__ = ["place"]  # the fixture

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]

#: What is always told, in this order; then come mounts, and what was left.
NAMES = """
    python kernel dev-fuse fusermount3 user-allow-other passthrough getxattrat overlayfs libfuse2 open-files
    upper-d_type upper-xattrs upper-whiteouts upper-tmpfile upper-rename-whiteout upper-reflink runtime-directory mounts
""".split()


def found(ran: Ran) -> list[schemas.Diagnosis]:
    """The diagnoses of `doctor --json`, whose exit status must be theirs."""
    diagnoses = [schemas.Diagnosis.model_validate(entry) for entry in json.loads(ran.out)]
    assert ran.err == b"" and ran.status == any(diagnosis.state == "problem" for diagnosis in diagnoses), ran
    return diagnoses


def one(ran: Ran, name: str) -> schemas.Diagnosis:
    (diagnosis,) = [diagnosis for diagnosis in found(ran) if diagnosis.name == name]
    return diagnosis


def about(place: Place, path: str | Path) -> list[schemas.Diagnosis]:
    """What doctor says of a mount or a directory."""
    return [diagnosis for diagnosis in found(place.run("doctor", "--json")) if diagnosis.path == str(path)]


def daemon(place: Place) -> int:
    pid = place.status().pid
    assert pid is not None
    return pid


# this machine --------------------------------------------------------------------------------------------------------
@requires("root", "fusermount3", "overlayfs")
def test_every_check_on_a_machine_that_has_it_all(place: Place) -> None:
    diagnoses = found(place.run("doctor", place.path, "--json"))
    assert [diagnosis.name for diagnosis in diagnoses][: len(NAMES)] == NAMES
    states = {diagnosis.name: diagnosis.state for diagnosis in diagnoses}
    assert {states[name] for name in ("python", "kernel", "dev-fuse", "fusermount3", "overlayfs", "mounts")} == {"ok"}
    assert {states[name] for name in ("upper-whiteouts", "upper-xattrs", "runtime-directory")} == {"ok"}
    assert {f.path for f in diagnoses if f.name.startswith("upper-")} == {str(place.path)}
    assert sorted(os.listdir(place.path)) == ["layer", "tree"]


def test_one_line_for_each_check_with_its_hint(place: Place) -> None:
    diagnoses = found(place.run("doctor", "--json"))
    ran = place.run("doctor")
    assert ran.err == b""
    lines = [line for line in ran.lines if not re.match(r"\w+ +(mounts|dead-mount|detached-mount|leftover):", line)]
    assert [line.split()[:2] for line in lines] == [[f.state, f"{f.name}:"] for f in diagnoses][: len(lines)]
    for line, diagnosis in zip(lines, diagnoses, strict=False):
        assert line.endswith(f" (hint: {diagnosis.hint})") == (diagnosis.hint is not None), line


def test_a_directory_that_is_none(place: Place) -> None:
    refused(place.run("doctor", place.path / "no"), 1, f"{place.path / 'no'} is not a directory")


# mounts --------------------------------------------------------------------------------------------------------------
def test_a_dead_mount_is_cleared_by_the_command_that_is_named(place: Place) -> None:
    tree = place.path / "two words"
    tree.mkdir()
    place.others.append(tree)
    assert place.run("mount", "-l", place.layer, "-u", place.upper, tree).status == 0
    assert about(place, tree) == []
    (record,) = [m for m in json.loads(place.run("mounts", "--json").out) if m["mountpoint"] == str(tree)]
    kill(record["pid"])
    (diagnosis,) = about(place, tree)
    assert (diagnosis.name, diagnosis.state) == ("dead-mount", "problem") and f"{place.upper} keeps" in diagnosis.found
    assert diagnosis.hint is not None
    program, *argv = shlex.split(diagnosis.hint)
    assert program == "unionfs" and place.run(*argv).status == 0
    assert about(place, tree) == [] and not is_mounted(tree)


def test_what_an_ephemeral_mount_left_is_found_when_umount8_cleared_it(place: Place) -> None:
    home = place.path / "tmp"
    home.mkdir()
    env = {"TMPDIR": str(home)}
    assert place.run("mount", "--ephemeral", "-l", place.layer, place.tree, env=env).status == 0
    (temporary,) = home.iterdir()
    pid = daemon(place)

    def leftovers() -> list[schemas.Diagnosis]:
        os.utime(temporary, (0, 0))  # it is not looked at while a mount may be in the making
        return [f for f in found(place.run("doctor", "--json", env=env)) if f.path == str(temporary)]

    assert leftovers() == []
    kill(pid)
    assert leftovers() == [], "unionfs umount removes it with the dead mount"
    unmount = ("umount", "-l") if os.geteuid() == 0 else ("fusermount3", "-uz")
    subprocess.run([*unmount, place.tree], check=True)
    (diagnosis,) = leftovers()
    assert (diagnosis.name, diagnosis.state, diagnosis.hint) == ("leftover", "warning", f"rm -r {temporary}")
    subprocess.run(shlex.split(diagnosis.hint), check=True)
    assert [f for f in found(place.run("doctor", "--json", env=env)) if f.path == str(temporary)] == []


def test_a_mount_that_was_detached_while_in_use(place: Place) -> None:
    place.mount("-u", place.upper)
    pid = daemon(place)
    with open(place.tree / "etc/motd"):
        assert place.run("umount", "--lazy", place.tree).status == 0
        (diagnosis,) = about(place, place.tree)
        assert (diagnosis.name, diagnosis.state) == ("detached-mount", "warning")
        assert f"process {pid} " in diagnosis.found and str(place.upper) in diagnosis.found
        assert diagnosis.hint == f"close them, or: kill {pid}"


@pytest.mark.slow
def test_a_daemon_that_does_not_answer(place: Place) -> None:
    place.mount("-u", place.upper)
    pid = daemon(place)
    os.kill(pid, signal.SIGSTOP)
    try:
        (diagnosis,) = about(place, place.tree)
        assert (diagnosis.name, diagnosis.state) == ("stuck-mount", "problem")
        assert diagnosis.hint == f"kill -9 {pid}; unionfs umount {place.tree}"
    finally:
        kill(pid)
    (diagnosis,) = about(place, place.tree)
    assert (diagnosis.name, diagnosis.hint) == ("dead-mount", f"unionfs umount {place.tree}")
    assert place.run("umount", place.tree).status == 0 and about(place, place.tree) == []


# machines that lack something ----------------------------------------------------------------------------------------
def elsewhere(script: str, *argv: str | Path) -> Ran:
    """`unionfs doctor --json` after a shell script, in a mount namespace of its own."""
    return in_namespace(script, "doctor", "--json", *argv)


def test_no_fuse_device(place: Place) -> None:
    ran = elsewhere("mount -t tmpfs none /dev")
    device = one(ran, "dev-fuse")
    assert (ran.status, device.state, device.path) == (1, "problem", "/dev/fuse")
    assert device.hint is not None and "modprobe fuse" in device.hint
    assert one(ran, "passthrough").state == "warning"


@requires("root", "fusermount3", "unshare")
@pytest.mark.parametrize(
    ("script", "said", "hint"),
    [
        ("cp $f $copy; chmod 755 $copy; mount --bind $copy $f", "not set-user-ID", "chmod u+s"),
        ("mount --bind $f $f; mount -o remount,bind,nosuid $f", "mounted nosuid", "with suid"),
        ('set -- setpriv --no-new-privs "$@"', "may gain no privileges", "NoNewPrivileges"),
    ],
)
def test_a_fusermount_that_helps_nobody(place: Place, script: str, said: str, hint: str) -> None:
    variables = f"f=$(command -v fusermount3); copy={place.path / 'copy'}"
    diagnosis = one(elsewhere(f"{variables}; {script}"), "fusermount3")
    assert (diagnosis.state, said in diagnosis.found) == ("warning", True), diagnosis
    assert diagnosis.hint is not None and hint in diagnosis.hint


@requires("root", "fusermount3", "unshare")
@pytest.mark.parametrize(
    ("text", "state"),
    [("user_allow_other\n", "ok"), ("  user_allow_other # yes\n", "ok"), ("#user_allow_other\n", "warning")],
)
def test_user_allow_other(place: Place, text: str, state: str) -> None:
    conf = place.path / "fuse.conf"
    conf.write_text(text)
    diagnosis = one(elsewhere(f"mount --bind {conf} /etc/fuse.conf"), "user-allow-other")
    assert (diagnosis.state, diagnosis.hint is None) == (state, state == "ok")


@requires("root", "libfuse")
def test_no_libfuse2(place: Place) -> None:
    assert one(place.run("doctor", "--json"), "libfuse2").state == "ok"
    library = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = {os.path.realpath(line.split()[-1]) for line in library.splitlines() if "libfuse.so.2" in line}
    diagnosis = one(elsewhere("\n".join(f"mount --bind /dev/null {path}" for path in paths)), "libfuse2")
    assert diagnosis.state == "warning" and diagnosis.hint is not None and "fuse" in diagnosis.hint


def test_a_kernel_without_overlayfs_and_few_files(place: Place) -> None:
    (place.path / "filesystems").write_text("nodev\ttmpfs\n\text4\n")
    ran = elsewhere(f"mount --bind {place.path / 'filesystems'} /proc/filesystems; ulimit -n 1000")
    assert (one(ran, "overlayfs").state, one(ran, "overlayfs").hint) == ("warning", "modprobe overlay")
    files = one(ran, "open-files")
    assert files.state == "warning" and "1000" in files.found and files.hint is not None


def test_a_file_system_that_holds_little(place: Place) -> None:
    ran = elsewhere(f"mount -t ramfs none {place.tree}", place.tree)
    xattrs = one(ran, "upper-xattrs")
    assert (xattrs.state, xattrs.path) == ("warning", str(place.tree)) and ".wh." in xattrs.found
    assert one(ran, "upper-whiteouts").state == "ok"
    assert "two steps" in one(ran, "upper-rename-whiteout").found
    assert "copies the data" in one(ran, "upper-reflink").found


def test_a_directory_that_cannot_be_written(place: Place) -> None:
    ran = elsewhere(f"mount -t tmpfs -o ro none {place.tree}", place.tree)
    upper = one(ran, "upper")
    assert (ran.status, upper.state) == (1, "problem") and "Read-only" in upper.found


@requires("root", "mkfs.btrfs")
def test_a_file_system_with_reflinks(place: Place) -> None:
    image = place.path / "image"
    with image.open("wb") as file:
        file.truncate(120 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    diagnosis = one(elsewhere(f"mount -o loop {image} {place.tree}", place.tree), "upper-reflink")
    assert diagnosis.state == "ok" and "shares the data" in diagnosis.found


@requires("root")
def test_what_is_a_warning_to_root_may_be_a_problem_to_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    for directory in tmp_path.parents[:2]:
        assert directory.stat().st_uid == 0
    without = {**os.environ, "PATH": str(home), "TMPDIR": "/tmp", "UNIONFS_RUNTIME_DIR": ""}
    doctor()  # imports what nobody might not be able to read

    def as_nobody() -> None:
        os.environ.clear()
        os.environ.update(without)
        diagnoses = {diagnosis.name: diagnosis for diagnosis in doctor()}
        assert diagnoses["fusermount3"] == Diagnosis(
            "fusermount3", "problem", "not found: only root can mount", "apt-get install fuse3"
        )
        assert diagnoses["upper-xattrs"].found.endswith(("user.overlay", "ignores (Operation not supported)"))
        assert diagnoses["upper-whiteouts"].state == "ok"

    assert shutil.which("fusermount3", path=str(home)) is None
    run_as_nobody(as_nobody)
