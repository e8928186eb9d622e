"""mount(8) by type, by fstab and by systemd's units: through mount.fuse3, which has a shell run `unionfs-mount`."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.namespace import Namespace
from tests.requirements import requires
from tests.unit.cli_runner import PROJECT, program
from tests.unit.mounts_rig import ended
from unionfs.mounts.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse, requires("root", "fuse", "mount.fuse3")]

UNITS = PROJECT / "share/systemd"


class Host(Namespace):
    """A directory `srv` with two layers, a place for changes and a mountpoint, and both programs in /usr/local/bin:
    mount(8) takes PATH out of the environment, and leaves the shell's own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, f"mount --bind {path}/bin /usr/local/bin", {**os.environ, "PYTHONPATH": str(PROJECT)})
        self.srv = path / "srv"
        for name in ("base", "settings", "tree"):
            (self.srv / name).mkdir(parents=True)
        (self.srv / "base/motd").write_text("welcome\n")
        (self.srv / "settings/conf").write_text("on\n")
        self.mountpoint = self.srv / "tree"
        (path / "bin").mkdir()
        for name, module in {"unionfs": "cli.main", "unionfs-mount": "unionfs.api.mount_helper"}.items():
            script = path / "bin" / name
            script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
            script.chmod(0o755)

    @property
    def tree(self) -> Path:
        """The mountpoint, seen from outside."""
        return self.path(self.mountpoint)

    @property
    def options(self) -> str:
        return f"lowerdir={self.srv}/settings:{self.srv}/base,upperdir={self.srv}/changes,workdir={self.srv}/work"

    def done(self, *argv: str | Path) -> None:
        ran = self.call(*argv)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), ran

    def fstab(self, line: str) -> Path:
        path = self.directory / "fstab"
        path.write_text(line + "\n")
        return path

    def mount_line(self) -> tuple[str, str, set[str]]:
        """Source, type and flags of the one mount."""
        (row,) = self.mount_rows()
        dash = row.index("-")
        return row[dash + 2], row[dash + 1], set(row[5].split(","))

    def daemon(self) -> int:
        records = [record for record in Registry().records() if record.mountpoint == os.fsencode(self.mountpoint)]
        return records[-1].pid


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    with made:
        yield made


def test_by_type(host: Host) -> None:
    host.done("mount", "-t", "fuse.unionfs-mount", "unionfs", host.mountpoint, "-o", host.options)
    source, fstype, flags = host.mount_line()
    assert (source, fstype) == ("unionfs", "fuse.unionfs") and not {"ro", "nosuid", "nodev", "noexec"} & flags
    assert sorted(os.listdir(host.tree)) == ["conf", "motd"]
    (host.tree / "motd").write_text("changed\n")
    (host.tree / "conf").unlink()
    with ended(host.daemon()):
        host.done("umount", host.mountpoint)
    assert [(host.srv / name / "motd").read_text() for name in ("changes", "base")] == ["changed\n", "welcome\n"]
    ran = program("diff", "-l", host.srv / "settings", "-l", host.srv / "base", "-u", host.srv / "changes")
    assert ran.lines == ["D /conf", "C /motd"]


def test_by_type_fuse_and_program_in_the_source(host: Host) -> None:
    host.done("mount", "-t", "fuse", "unionfs-mount#layers", host.mountpoint, "-o", host.options)
    assert host.mount_line()[0] == "layers" and (host.tree / "motd").read_text() == "welcome\n"


def test_flags_of_mount8(host: Host) -> None:
    flags = "ro,nosuid,nodev,noexec,noatime"
    (host.srv / "changes").mkdir()
    host.done("mount", "-t", "fuse.unionfs-mount", "unionfs", host.mountpoint, "-o", f"{host.options},{flags}")
    assert set(flags.split(",")) <= host.mount_line()[2]
    with pytest.raises(OSError, match="Read-only"):
        (host.tree / "new").touch()
    with pytest.raises(PermissionError):
        subprocess.run([host.tree / "motd"], check=False)


def test_what_fails_is_said(host: Host) -> None:
    ran = host.call("mount", "-t", "fuse.unionfs-mount", "unionfs", host.mountpoint, "-o", "lowerdir=/nowhere")
    assert ran.returncode != 0 and "unionfs-mount: layer /nowhere does not exist" in ran.stderr
    assert host.mounts() == []


def readme_fstab() -> str:
    (line,) = re.findall(r"^ *(unionfs /srv/tree fuse\.unionfs-mount .*)$", (PROJECT / "README.md").read_text(), re.M)
    return str(line)


def test_the_readmes_line_of_fstab(host: Host) -> None:
    fstab = host.fstab(readme_fstab().replace("/srv/", f"{host.srv}/"))
    host.done("mount", "-T", fstab, host.mountpoint)
    assert sorted(os.listdir(host.tree)) == ["conf", "motd"]
    (host.tree / "new").write_text("new\n")
    ran = host.call("mount", "-T", fstab, "-a", "-v")
    assert ran.returncode == 0 and "already mounted" in ran.stdout
    assert len(host.mounts()) == 1
    host.done("umount", host.mountpoint)
    host.done("mount", "-T", fstab, "-a")
    assert (host.tree / "new").read_text() == "new\n"


def test_a_line_of_fstab_with_blanks_and_what_systemd_reads(host: Host) -> None:
    (host.srv / "settings").rename(host.srv / "two words")
    (host.srv / "tree").rename(host.srv / "a tree")
    host.mountpoint = host.srv / "a tree"
    options = host.options.replace("settings", r"two\040words") + ",nofail,noauto,_netdev,x-systemd.automount"
    fstab = host.fstab(rf"unionfs {host.srv}/a\040tree fuse.unionfs-mount defaults,{options} 0 0")
    host.done("mount", "-T", fstab, host.mountpoint)
    assert sorted(os.listdir(host.tree)) == ["conf", "motd"]


def test_remount_is_for_the_kernel(host: Host) -> None:
    fstab = host.fstab(f"unionfs {host.mountpoint} fuse.unionfs-mount {host.options} 0 0")
    host.done("mount", "-T", fstab, host.mountpoint)
    ran = host.call("mount", "-T", fstab, "-o", "remount,ro", host.mountpoint)
    assert ran.returncode != 0 and "hint: mount -i -o remount" in ran.stderr
    assert len(host.mounts()) == 1
    host.done("mount", "-i", "-o", "remount,ro", host.mountpoint)
    with pytest.raises(OSError, match="Read-only"):
        (host.tree / "new").touch()


# systemd --------------------------------------------------------------------------------------------------------------
def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep capitals
    parser.read(path)
    return parser


@requires("systemd-analyze")
@pytest.mark.parametrize("name", ["unionfs@.service", "srv-tree.mount"])
def test_systemd_finds_no_fault_in_the_units(host: Host, name: str) -> None:
    text = (UNITS / name).read_text().replace("/usr/local/bin/", f"{host.directory}/bin/")
    (host.directory / name).write_text(text)
    ran = host.call("systemd-analyze", "verify", host.directory / name)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    (host.directory / name).write_text(text.replace("Type=", "Typo="))
    assert "Typo" in host.call("systemd-analyze", "verify", host.directory / name).stderr


def test_the_mount_unit_says_what_fstab_says() -> None:
    mount = unit(UNITS / "srv-tree.mount")["Mount"]
    words = [mount["What"], mount["Where"], mount["Type"], mount["Options"], "0", "0"]
    assert " ".join(words) == readme_fstab()


def test_the_service_mounts_and_its_daemon_ends_by_the_signal_of_systemd(host: Host) -> None:
    service = unit(UNITS / "unionfs@.service")["Service"]
    conf = re.findall(r"^# +([A-Z]+)=(.*)$", (UNITS / "unionfs@.service").read_text(), re.M)
    values = {name: value.replace("/srv/", f"{host.srv}/") for name, value in conf}
    assert sorted(values) == ["MOUNTPOINT", "OPTIONS"]

    def command(key: str) -> list[str]:
        words = service[key].removeprefix("-").replace("/usr/local/bin/", f"{host.directory}/bin/").split()
        return [re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], word) for word in words]

    host.done(*command("ExecStart"))
    assert sorted(os.listdir(host.tree)) == ["conf", "motd"]
    with ended(host.daemon()):
        os.kill(host.daemon(), 15)
    assert host.mounts() == []
    host.call(*command("ExecStopPost"))
    host.done(*command("ExecStart"))
    with ended(host.daemon()):
        os.kill(host.daemon(), 9)
    assert host.call(*command("ExecStart")).returncode == 1
    host.done(*command("ExecStopPost"))
    host.done(*command("ExecStart"))
    assert (host.tree / "motd").read_text() == "welcome\n"
