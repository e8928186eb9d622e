"""Snapshots: what is written is read back, what others write is understood, what breaks the format is refused."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.compare_rig import THEN, Plot, lines, plot, side
from unionfs.changeset.difference import EVERY, Reason
from unionfs.compare import mtree
from unionfs.compare.mtree import Entry
from unionfs.compare.snapshot import SnapshotView, write
from unionfs.compare.stored import ChangesetView
from unionfs.compare.walk import Side, differences
from unionfs.errors import SnapshotError
from unionfs.layers.memory import MemoryLayer
from unionfs.vfs import DT_BLK, DT_DIR, DT_LNK, DT_REG

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of "test"


def read(text: bytes) -> list[Entry]:
    return list(mtree.Reading(io.BytesIO(text)).entries())


def written(tree: MemoryLayer | Side) -> bytes:
    out = io.BytesIO()
    write(tree if isinstance(tree, Side) else side(tree), out)
    return out.getvalue()


def snapshot(text: bytes) -> Side:
    return Side(SnapshotView(io.BytesIO(text)))


def crowded() -> Plot:
    def fill(tree: Plot) -> None:
        tree.file(b"etc/motd", b"test", 0o4755)
        tree.join(b"etc/motd", b"etc/same")
        tree.to(b"link", b"etc/\xff x=#")
        tree.device(b"null", 1, 3)
        tree.file(b"name with\nall=#*?[]\\\xff\x00"[:-1], b"")
        tree.setxattr(b"etc", b"user.\xc3\xa9=1", b"\0\xff")
        tree.chown(b"link", 5, 6)
        tree.mknod(b"pipe", 0o010644, 0)
        tree.mknod(b"sock", 0o140755, 0)
        tree.mknod(b"disk", 0o060600, os.makedev(259, 1000))

    return plot(fill)


def test_a_tree_and_its_snapshot_are_the_same() -> None:
    tree = crowded()
    found = list(differences(snapshot(written(tree)), side(tree), exact=True))
    assert lines(found) == []
    assert list(differences(side(tree), snapshot(written(tree)), exact=True)) == []


def test_the_same_tree_gives_the_same_bytes_from_the_snapshot_too() -> None:
    text = written(crowded())
    assert text == written(crowded()) == written(snapshot(text))


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (lambda t: t.chmod(b"etc/motd", 0o755), "mode"),
        (lambda t: t.chown(b"link", 7, -1), "owner"),
        (lambda t: t.open(b"etc/motd", os.O_RDWR).pwrite(b"T", 0), "content,mtime"),
        (lambda t: t.removexattr(b"etc", b"user.\xc3\xa9=1"), "xattr"),
        (lambda t: t.setxattr(b"etc/motd", b"user.n", b"1"), "xattr"),
        (lambda t: t.utime(b"etc/motd", THEN, THEN + 1), "mtime"),
        (lambda t: (t.unlink(b"etc/same"), t.file(b"etc/same", b"test", 0o4755)), "hardlink"),
        (lambda t: (t.unlink(b"null"), t.device(b"null", 1, 5)), "device"),
    ],
)
def test_what_changes_afterwards_is_seen(change: object, reasons: str) -> None:
    tree = crowded()
    before = snapshot(written(tree))
    change(tree)  # type: ignore[operator]
    wanted = EVERY - {Reason.DIRMTIME}
    found = {",".join(one.reasons) for one in differences(before, side(tree), wanted=wanted, exact=True)}
    assert found == {reasons}


def test_the_first_xattr_of_a_tree_is_seen_and_nobody_elses_silence_is_taken_for_none() -> None:
    tree = plot(lambda t: t.file(b"f"))
    text = written(tree)
    tree.setxattr(b"f", b"user.a", b"1")
    assert lines(differences(snapshot(text), side(tree))) == ["C /f xattr"]
    others = b"".join(line for line in text.splitlines(keepends=True) if b"keywords" not in line)
    assert list(differences(snapshot(others), side(tree))) == []


def test_a_changeset_is_written_down_with_its_whiteouts() -> None:
    def fill(tree: Plot) -> None:
        tree.dir(b"d")
        tree.mknod(b"d/gone", 0o020000, 0)
        tree.setxattr(b"d", b"trusted.overlay.opaque", b"y")

    view = Side(ChangesetView(plot(fill), upper=True))
    text = written(view)
    assert b"./d/gone type=whiteout\n" in text and b"xattr.overlay.opaque=eQ" in text
    assert list(differences(snapshot(text), view)) == []


names = st.binary(min_size=1, max_size=8).filter(lambda name: name not in (b".", b"..") and not {0, 47} & {*name})


@given(names, st.binary(max_size=20).filter(lambda target: 0 not in target), st.integers(-(2**40), 2**62))
@settings(deadline=None)
def test_any_name_and_time_comes_back(name: bytes, target: bytes, time: int) -> None:
    entry = Entry(b"d/" + name, DT_LNK, link=target, mtime_ns=time, xattrs={b"user." + name: target})
    assert read(mtree.line(entry)) == [entry]


# what others write ----------------------------------------------------------------------------------------------------
def test_the_entries_of_the_mtree_of_bsd_relative_to_each_other() -> None:
    text = rb"""#	   user: root
/set type=file uid=0 gid=0 mode=0644 nlink=1
.               type=dir mode=0755 nlink=3 time=5.0
    etc         type=dir mode=0755
        motd    size=4 \
                time=1700000000.123456789 sha256=%s
        a\040b  mode=0600 uid=7
    ..
/unset mode
    dev         type=block device=linux,8,1
    l           type=link link=\057x
..
""" % SHA.encode()
    found = {entry.path: entry for entry in read(text)}
    assert list(found) == [b"", b"etc", b"etc/motd", b"etc/a b", b"dev", b"l"]
    motd = found[b"etc/motd"]
    assert (motd.type, motd.size, motd.mtime_ns, motd.digests) == (
        DT_REG,
        4,
        1_700_000_000_123_456_789,
        {"sha256": SHA},
    )
    assert (found[b"etc/a b"].permissions, found[b"etc/a b"].uid, found[b"etc/a b"].gid) == (0o600, 7, 0)
    assert (found[b"dev"].type, found[b"dev"].device, found[b"dev"].permissions) == (DT_BLK, os.makedev(8, 1), None)
    assert found[b"l"].link == b"/x" and found[b""].type == DT_DIR


@pytest.mark.parametrize(
    ("quoted", "name"),
    [
        (rb"a\040b", b"a b"), (rb"a\sb", b"a b"), (rb"a\tb", b"a\tb"), (rb"\M-C\M-)", b"\xc3\xa9"), (rb"\^A", b"\x01"),
        (rb"\M^A", b"\x81"), (rb"\\", b"\\"), (rb"\#x", b"#x"), (rb"\1012", b"A2"), (b"\xff", b"\xff"),
    ],
)  # fmt: skip
def test_names_in_all_styles_of_vis(quoted: bytes, name: bytes) -> None:
    assert read(b"./%s type=file" % quoted)[0].path == name


def test_what_a_snapshot_does_not_tell_is_not_compared() -> None:
    tree = plot(lambda t: t.file(b"f", b"test", 0o600), lambda t: t.file(b"d/g", b"1"))
    assert list(differences(snapshot(b"#mtree\n./f type=file\n./d/g type=file\n"), side(tree))) == []
    told = b"#mtree\n./f type=file mode=600 size=4 sha256=%s uid=1 gid=0\n./d/g type=file size=2\n" % SHA.encode()
    assert lines(differences(snapshot(told), side(tree))) == ["C /d/g size", "C /f owner"]


def test_a_digest_speaks_for_the_content() -> None:
    for keyword in ("sha256", "sha256digest"):
        text = f"./f type=file {keyword}={SHA}".encode()
        assert lines(differences(snapshot(text), side(plot(lambda t: t.file(b"f", b"test"))))) == []
        assert lines(differences(snapshot(text), side(plot(lambda t: t.file(b"f", b"Test"))))) == ["C /f content"]


def test_digests_of_two_kinds_are_no_sameness() -> None:
    one = snapshot(f"./f type=file size=4 sha256={SHA}".encode())
    other = snapshot(b"./f type=file size=4 md5=" + b"0" * 32)
    failures: list[OSError] = []
    assert list(differences(one, other, on_failure=failures.append)) == []
    assert [(error.filename, error.strerror) for error in failures] == [("/f", "its digests are of different kinds")]


def test_whole_seconds_are_compared_as_such() -> None:
    tree = plot(lambda t: t.file(b"f"))
    text = b"./f type=file tar_time=%d.000000000" % (THEN // 10**9)
    assert list(differences(snapshot(text), side(tree), exact=True)) == []


# what breaks the format -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        b"./f", b"./f type=door", b"./f type=file mode=8", b"./f type=file mode=77777", b"./f type=file size=-1",
        b"./f type=file size=1e9", b"./f type=file uid=99999999999999999999999", b"./f type=file time=now",
        b"./f type=file time=1.2.3", b"./f type=file sha256=xyz", b"./f type=file sha256=" + b"g" * 64,
        b"./../f type=file", b"./a/../../f type=file",
        rb"./a\057b type=file", rb"./\000 type=file", rb"\056\056 type=file",
        b"..", b"/usr type=dir", b". type=file", b"./f type=char device=native,1", b"./f type=char device=x",
        b"./f type=file inode=x",
        b"./f type=file xattr.user.a=***", b"./f type=file \\", b"./f type=file " + b"x" * mtree.MAX_LINE,
    ],
)  # fmt: skip
def test_what_is_no_mtree_is_refused_with_its_line(text: bytes) -> None:
    with pytest.raises(SnapshotError, match="line 2") as refused:
        read(b"#mtree\n" + text)
    assert refused.value.line == 2


def test_a_file_has_nothing_in_it() -> None:
    with pytest.raises(SnapshotError, match="/f has something in it"):
        snapshot(b"./f type=file\n./f/g type=file\n")


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_a_tree_or_a_refusal(text: bytes) -> None:
    try:
        view = snapshot(b"#mtree\n" + text)
    except SnapshotError:
        return
    assert list(differences(view, view)) == []


@given(
    st.lists(
        st.sampled_from(
            [
                b".",
                b"..",
                b"a",
                b"./a",
                b"./a/b",
                b"type=dir",
                b"type=file",
                b"type=link",
                b"link=x",
                b"mode=7",
                b"size=1",
                b"\n",
                b"/set",
                b"/unset",
                b"all",
                b"inode=1",
                b"nlink=2",
                b"device=1",
                b"#",
                b"\\\n",
            ]
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=300)  # fmt: skip
def test_any_words_give_a_tree_or_a_refusal(words: list[bytes]) -> None:
    test_any_bytes_give_a_tree_or_a_refusal.hypothesis.inner_test(b" ".join(words))  # type: ignore[attr-defined]
