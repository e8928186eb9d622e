"""A busybox root as a lower layer: changed from inside a chroot, committed, and applied again, by us and by others."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.compat.real_mount import (
    BSD_TAR,
    GNU_TAR,
    RealStack,
    chroot,
    each_transport,
    extract_over,
    pack,
    umoci_unpack,
)
from tests.golden.trees import describe
from tests.requirements import need, requires
from tests.semantics.unions import copy_tree, same_tree

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "tar"),
]

YEAR_2001 = 10**18


def busybox_root(root: Path) -> None:
    """A small distribution: busybox and its links, some of everything that a file system can hold."""
    for name in ("bin", "dev", "etc/init.d", "home/user", "root", "tmp", "usr/share/doc/busybox", "usr/lib", "var/log"):
        (root / name).mkdir(parents=True)
    program = shutil.which("busybox")
    assert program is not None
    shutil.copy(program, root / "bin" / "busybox")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True, timeout=20).stdout.split()
    for applet in applets:
        if applet != "busybox":
            os.symlink("busybox", root / "bin" / applet)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nuser:x:1000:\n")
    (root / "etc" / "motd").write_text("welcome\n")
    (root / "etc" / "issue").write_text("busybox\n")
    for i in range(20):
        (root / "etc" / "init.d" / f"S{i:02}").write_text(f"#!/bin/sh\nexit {i}\n")
        (root / "usr" / "share" / "doc" / "busybox" / f"page{i}").write_text("text\n" * i)
    (root / "usr" / "lib" / "library").write_bytes(os.urandom(300_000))
    os.link(root / "usr" / "lib" / "library", root / "usr" / "lib" / "library.so.1")
    os.link(root / "etc" / "init.d" / "S01", root / "etc" / "init.d" / "S01-link")
    os.mknod(root / "dev" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "dev" / "sda", stat.S_IFBLK | 0o660, os.makedev(8, 0))
    os.mkfifo(root / "dev" / "initctl")
    (root / "dev" / "null").chmod(0o666)
    (root / "tmp").chmod(0o1777)
    os.chown(root / "home" / "user", 1000, 1000)
    with open(root / "var" / "log" / "sparse", "wb") as f:
        f.truncate(1 << 20)
        f.seek(500_000)
        f.write(b"island")
    os.setxattr(root / "etc" / "motd", "user.note", b"\x00binary\xff")
    # cap_net_raw+ep, as vfs_cap_data of linux/capability.h has it (revision 2)
    os.setxattr(
        root / "usr" / "lib" / "library", "security.capability", bytes.fromhex("01000002" + "00200000" + "00" * 12)
    )
    (root / "usr" / "lib" / os.fsdecode(b"latin-\xe9")).write_text("name that is no UTF-8\n")
    (root / "usr" / "lib" / ("long" * 60)).write_text("long name\n")
    for directory, dirs, files in os.walk(root):
        for name in [*dirs, *files]:
            os.utime(Path(directory, name), ns=(YEAR_2001, YEAR_2001 + len(name)), follow_symlinks=False)


#: What is done inside. Every line is one that people's builds have.
SCRIPT = r"""
set -e
echo new > /root/new; echo more >> /etc/motd; sed -i s/busybox/BusyBox/ /etc/issue
rm /etc/group; rm -r /usr/share/doc; mkdir -p /usr/share/doc/other; echo x > /usr/share/doc/other/x
mv /etc/init.d /etc/rc.d; echo exit > /etc/rc.d/S99; rm /etc/rc.d/S05; mv /etc/rc.d/S06 /etc/rc.d/sub06
mv /home /users; mkdir -p /home/user/deep; ln -s ../users /home/link
mv /usr/lib /usr/lib64; mkdir /usr/lib; mv /usr/lib64/library.so.1 /usr/lib/library.so.2
rm /usr/lib64/library; echo in place of a library > /usr/lib64/library
chown 1000:1000 /etc/passwd; chmod 4711 /etc/passwd; touch -d '2005-05-05 05:05:05' /var/log/sparse
ln /root/new /root/hard; ln /root/hard /tmp/hard; ln -s new /root/soft; mkfifo /root/fifo; mknod /root/zero c 1 5
rm /dev/sda; mkdir /dev/sda; rm -r /var/log; echo a file now > /var/log
cp -a /etc /tmp/etc-copy; rm -r /tmp/etc-copy/rc.d
tar -c -C /etc . | tar -x -C /root; find / -xdev -type f | sort | head -5 > /tmp/found
mkdir /tmp/a; mv /tmp/a /tmp/b; mv /tmp/b /root/b; rmdir /root/b
rm /bin/awk; ln -s busybox /bin/awk2; rm /bin/vi; mkdir /bin/vi; chmod 700 /root
dd if=/bin/busybox of=/root/big bs=1000 count=300
"""


def changed(stack: RealStack) -> tuple[Path, Path, Path]:
    """The root, its changes made and committed: (a copy of what the mount shows, the layer, a copy of the lower)."""
    busybox_root(stack.lower())
    with stack.mounted() as mnt:
        assert chroot(mnt, "/bin/sh", "-c", "echo hello from inside; cat /etc/motd") == "hello from inside\nwelcome\n"
        chroot(mnt, "/bin/sh", "-c", SCRIPT)
        assert chroot(mnt, "/bin/cat", "/etc/motd", "/etc/issue", "/root/hard") == "welcome\nmore\nBusyBox\nnew\n"
        seen = copy_tree(mnt, stack.directory / "seen")
        layer = stack.commit()
        again = stack.commit("again.tar")
    assert layer.read_bytes() == again.read_bytes()
    return seen, layer, copy_tree(stack.layers[-1], stack.directory / "copy")


@each_transport(slow=("devfuse-cached",))
def test_change_commit_apply_gives_the_same_tree(stack: RealStack) -> None:
    seen, layer, copy = changed(stack)
    stack.unionfs("apply", layer, copy)
    same_tree(copy, seen)
    # Applying what is already there changes nothing.
    stack.unionfs("apply", layer, copy)
    same_tree(copy, seen)


@each_transport("devfuse")
def test_other_programs_read_the_layer(stack: RealStack) -> None:
    need("bsdtar", "umoci")
    seen, layer, copy = changed(stack)
    base = stack.directory / "base.tar"
    pack(copy, base)
    same_tree(umoci_unpack(stack.directory, [base, layer]), seen)
    by_bsdtar = copy_tree(copy, stack.directory / "by-bsdtar")
    extract_over(copy, layer, GNU_TAR)
    same_tree(copy, seen)
    extract_over(by_bsdtar, layer, BSD_TAR)
    # It leaves the times of directories that are there already (libarchive, restore_entry()).
    assert without_directory_times(describe(by_bsdtar)) == without_directory_times(describe(seen))


def without_directory_times(lines: list[str]) -> list[str]:
    split = [line.split(" ") for line in lines]
    return [" ".join([*words[:3], "-", *words[4:]] if words[0] == "dir" else words) for words in split]


@each_transport("devfuse", "fusepy", slow=("fusepy",))
def test_second_layer_on_the_first(stack: RealStack) -> None:
    """The upper of one mount is a layer of the next: what both change is committed apart and applied in turn."""
    seen, first, copy = changed(stack)
    stack.layers.insert(0, stack.upper)
    stack.upper = stack.directory / "second-upper"
    with stack.mounted() as mnt:
        # The root itself is the new upper's directory, made a moment ago.
        assert describe(copy_tree(mnt, stack.directory / "seen-before"))[1:] == describe(seen)[1:]
        chroot(
            mnt, "/bin/sh", "-c",
            "set -e; mv /etc/rc.d /etc/init.d; rm -r /users; mv /usr/lib64 /users; rm /var/log; mkdir /var/log;"
            "echo 2 >> /etc/motd; rm -r /home; mv /root /home; mkdir /root; mv /home/hard /root; echo 3 >> /root/hard",
        )  # fmt: skip
        after = copy_tree(mnt, stack.directory / "seen-after")
        second = stack.commit("second.tar")
    for layer in (first, second):
        stack.unionfs("apply", layer, copy)
    same_tree(copy, after)
