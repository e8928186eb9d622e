"""Each rule of `unionfs check`, on the smallest tree that breaks it; and what its repair leaves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.requirements import requires
from tests.unit.overlay_rig import union
from tests.unit.upkeep_rig import TIME, Dying, View, shown, shown_over, store, stored
from unionfs.api import MountError, check
from unionfs.layers.layer import OriginHandle
from unionfs.mounts.registry import MountRecord, Registry
from unionfs.overlay.hardlink import encode_origin
from unionfs.upkeep.check import check as check_layers

ORIGIN = encode_origin(OriginHandle(1, b"\1\2\3\4\5\6\7\x08", bytes(16)))
OTHER = encode_origin(OriginHandle(1, b"\x08\7\6\5\4\3\2\1", bytes(16)))
QUOTED = "".join(f"%{byte:02x}" for byte in ORIGIN)

BASE = ("data d/x below", "data d/y below", "data f below", "dir e", "data e/x below")


class Case(NamedTuple):
    """A tree over BASE, and its findings as "PATH RULE", with "!" behind those that no repair mends."""

    lines: Sequence[str]
    findings: Sequence[str]
    upper: bool = False
    lowers: bool = False


LAYERS = {
    "a plain layer": Case(["dir d opaque=y", "data d/x new", "dev f"], []),
    "a whiteout in an opaque directory": Case(["dir d opaque=y", "dev d/x"], ["d/x whiteout-in-opaque"]),
    "an AUFS whiteout in an opaque directory": Case(
        ["file d/.wh..wh..opq", "file d/.wh.x"], ["d/.wh.x whiteout-in-opaque"]
    ),
    "a whiteout of nothing": Case(["dev d/no", "dev d/x"], ["d/no whiteout-of-nothing"], lowers=True),
    "an AUFS whiteout of nothing": Case(
        ["file d/.wh.no", "file d/.wh.x"], ["d/.wh.no whiteout-of-nothing"], lowers=True
    ),
    "an xattr whiteout of nothing": Case(
        ["dir d opaque=x", "file d/no whiteout=", "file d/x whiteout="], ["d/no whiteout-of-nothing"], lowers=True
    ),
    "a whiteout where nothing is below": Case(["dir new", "dev new/x"], ["new/x whiteout-of-nothing"], lowers=True),
    "whiteouts that cannot be judged": Case(["dev d/no"], []),
    "whiteouts in a directory that goes on elsewhere": Case(
        ["dir new redirect=/d", "dev new/x", "dev new/no"], ["new/no whiteout-of-nothing"], lowers=True
    ),
    "whiteouts in a renamed directory inside a renamed one": Case(
        ["dir new redirect=e", "dev new/x", "dev new/no"], ["new/no whiteout-of-nothing"], lowers=True
    ),
    "an xattr whiteout that nothing announces": Case(["file d/x whiteout="], ["d/x whiteout-not-announced !"]),
    "redirects of the right form": Case(["dir a redirect=/d", "dir b redirect=d", "dir c redirect=/d/e"], []),
    "an empty redirect": Case(["dir a redirect="], ["a bad-redirect"]),
    "a redirect that climbs": Case(["dir a redirect=/../etc"], ["a bad-redirect"]),
    "a redirect with a dot": Case(["dir a redirect=/./d"], ["a bad-redirect"]),
    "a redirect of two relative names": Case(["dir a redirect=d/e"], ["a bad-redirect"]),
    "a redirect with an empty name": Case(["dir a redirect=/d//e"], ["a bad-redirect"]),
    "a redirect with a NUL": Case(["dir a redirect=d%00"], ["a bad-redirect"]),
    "a redirect to nothing": Case(["dir a redirect=/no"], ["a redirect-to-nothing !"], lowers=True),
    "a redirect to a file": Case(["dir a redirect=/f"], ["a redirect-to-nothing !"], lowers=True),
    "a relative redirect that goes nowhere": Case(
        ["dir new/a redirect=d"], ["new/a redirect-to-nothing !"], lowers=True
    ),
    "a redirect that leads somewhere": Case(["dir a redirect=/d"], [], lowers=True),
    "a redirect that opaqueness overrules": Case(["dir a redirect=/no opaque=y"], [], lowers=True),
    "a metacopy with data": Case(
        ["dir . impure=y", "file f metacopy=", "file g metacopy= redirect=/d/x"], [], lowers=True
    ),
    "a metacopy without data": Case(["dir . impure=y", "file g metacopy="], ["g metacopy-without-data !"], lowers=True),
    "a metacopy of a directory": Case(
        ["dir . impure=y", "file d metacopy="], ["d metacopy-without-data !"], lowers=True
    ),
    "a metacopy redirected to nothing": Case(
        ["dir . impure=y", "file f metacopy= redirect=/no"], ["f metacopy-without-data !"], lowers=True
    ),
    "a metacopy in a new directory": Case(
        ["dir new impure=y", "file new/f metacopy="], ["new/f metacopy-without-data !"], lowers=True
    ),
    "a metacopy with a digest": Case(["dir . impure=y", "file f metacopy=%00%08%00%01abcd"], []),
    "a metacopy with a malformed redirect": Case(
        ["dir . impure=y", "file f metacopy= redirect=/../etc"], ["f bad-redirect !"]
    ),
    "a metacopy in a directory that does not say so": Case(["file d/f metacopy="], ["d metacopy-not-announced"]),
    "a malformed metacopy": Case(["dir . impure=y", "file f metacopy=%00%09%00%01abcd"], ["f bad-metacopy !"]),
    "an opaque of another value": Case(["dir d opaque=n", "dir e opaque="], ["d bad-opaque", "e bad-opaque"]),
    "an opaque that readers disagree about": Case(["dir d opaque=yes"], ["d bad-opaque !"]),
    "an origin that does not decode": Case(["file f origin=%00", "dir d origin=%00%fb%04%00"], ["d bad-origin", "f bad-origin"]),  # noqa: E501
    "an origin of another machine or unknown": Case(["file f origin=", "file g origin=%07%fb%ff" + "0" * 30], []),
    "an origin": Case([f"file f origin={QUOTED}"], []),
    "a link count": Case(["file f nlink=U+1", "file g nlink=L-2"], []),
    "a malformed link count": Case(["file f nlink=1", "file g nlink=U1"], ["f bad-nlink", "g bad-nlink"]),
    "marks of directories on files": Case(
        ["file f opaque=y impure=y whiteouts=y"], ["f mark-on-wrong-kind"] * 3
    ),
    "marks of files on directories": Case(["dir d metacopy= nlink=U+1 whiteout="], ["d mark-on-wrong-kind"] * 3),
    "a whiteout mark on a file with data": Case(
        ["dir d opaque=x", "data d/x text whiteout="], ["d/x mark-on-wrong-kind"]
    ),
    "a visible whiteout on a file with data": Case(
        ["data f text unionfs.whiteout=y"], ["f mark-on-wrong-kind"]
    ),
    "marks of ours": Case(["file f unionfs.slot=1 unionfs.number=12+", "file g unionfs.whiteout=y"], []),
    "malformed marks of ours": Case(
        ["file f unionfs.slot=a unionfs.number=-1"], ["f bad-number", "f bad-slot"]
    ),
    "a root with faults": Case(["dir . opaque=z uuid=short"], [". bad-opaque", ". bad-uuid"]),
    "marks that nobody knows": Case(["file f future=1"], []),
    "a mark inside a mark": Case(["dir d overlay.opaque=z"], []),
    "an interrupted conversion": Case(["dir . unionfs.converting=y"], [". unfinished-conversion !"]),
    "an interrupted look": Case(["dir . unionfs.probe="], [". probe"]),
    "a fuse-overlayfs mark": Case(["dir d user.fuseoverlayfs.opaque=y", "file d/.wh..wh..opq"], []),
    "a malformed fuse-overlayfs mark": Case(["dir d user.fuseoverlayfs.opaque=n"], ["d bad-opaque"]),
    "what fuse-overlayfs leaves": Case(
        ["dev d/.wh..wh.opq", "dev d/.wh..opq"], ["d/.wh..opq aufs-debris", "d/.wh..wh.opq aufs-debris"]
    ),
    "a whiteout of no name": Case(["file d/.wh."], ["d/.wh. aufs-debris"]),
    "a whiteout of the directory itself": Case(["file d/.wh.."], ["d/.wh.. aufs-debris"]),
    "a whiteout of the one above": Case(["file d/.wh..."], ["d/.wh... aufs-debris"]),
    "a whiteout of no name with data": Case(["data d/.wh. text"], ["d/.wh. aufs-malformed !"]),
    "AUFS's own": Case(
        ["file .wh..wh.aufs", "dir .wh..wh.plnk", "dir .wh..wh.orph", "file .wh..wh.orph/kept", "file d/.wh..wh.aufs"],
        [".wh..wh.orph aufs-debris !", ".wh..wh.plnk aufs-debris", "d/.wh..wh.aufs aufs-debris"],
    ),
    "a whiteout with data": Case(["data d/.wh.x text"], ["d/.wh.x aufs-malformed !"]),
    "a whiteout that is a directory": Case(["dir d/.wh.x"], ["d/.wh.x aufs-malformed !"]),
    "a whiteout beside a file": Case(["data .wh.f text", "data f text"], [".wh.f aufs-malformed !"]),
    "an empty whiteout beside a file": Case(["file .wh.f", "data f text"], [".wh.f whiteout-beside-name"]),
    "a whiteout beside a directory": Case(["file .wh.d", "data d/new text"], [".wh.d whiteout-beside-name"]),
    "a whiteout beside an opaque directory": Case(["file .wh.d", "dir d opaque=y"], [".wh.d whiteout-beside-name"]),
    "two whiteouts of one name": Case(["file .wh.f", "dev f"], [".wh.f whiteout-beside-name"]),
    "left by a conversion": Case(["dev d/.wh..wh.unionfs.staged"], ["d/.wh..wh.unionfs.staged aufs-debris"]),
    "names that are no UTF-8": Case(["file d/.wh.%ff", "data d/%ff text"], ["d/.wh.\udcff whiteout-beside-name"]),
}  # fmt: skip

UPPERS = {
    "names of a user's": Case(["file .wh.f", "data f x", "file d/.wh..wh.plnk", "file .wh."], [], upper=True),
    "an upper written with AUFS names": Case(
        ["file .wh..wh.aufs", "file .wh.f", "data f x"], [".wh.f whiteout-beside-name"], upper=True
    ),
    "what fuse-overlayfs leaves in an upper": Case(["dev d/.wh..wh.opq"], ["d/.wh..wh.opq aufs-debris"], upper=True),
    "a whiteout of a name of a user's": Case(["dev .wh.f"], [], upper=True, lowers=True),
    "a whiteout of nothing in an upper": Case(["dev no"], ["no whiteout-of-nothing"], upper=True, lowers=True),
}


def run(case: Case, tmp_path: Path, repair: bool = False) -> list[str]:
    """The findings; with `repair`, those left, as "PATH RULE !"."""
    base = tmp_path / "base"
    work = tmp_path / "tree.work"
    if not base.exists():
        store(base, *BASE)
        store(tmp_path / "tree", *case.lines)
        if case.upper:
            store(work, "dir work", "dir index")
    result = check(tmp_path / "tree", layers=[base] if case.lowers else [], repair=repair)
    assert result.upper == case.upper
    lines = []
    for finding in result.findings:
        path = os.fsdecode(finding.path) or "."
        marked = " !" if finding.repair.startswith("none: ") or finding.state == "left" else ""
        lines.append(f"{path} {finding.rule}{marked}")
    return sorted(lines)


@pytest.mark.parametrize("name", [*LAYERS, *UPPERS])
def test_rule_is_found_and_repaired_without_loss(name: str, tmp_path: Path) -> None:
    case = (LAYERS | UPPERS)[name]
    expected = sorted(case.findings)
    found = [line.removesuffix(" !") for line in run(case, tmp_path)]
    assert found == [line.removesuffix(" !") for line in expected]
    before, times = seen(case, tmp_path), stored(tmp_path / "tree")
    assert run(case, tmp_path, repair=True) == expected
    assert seen(case, tmp_path) == before
    assert directories(stored(tmp_path / "tree")) == directories(times)
    left = sorted(line for line in expected if line.endswith("!"))
    assert run(case, tmp_path, repair=True) == left


_NO_WHITEOUTS = (".wh.", ".wh..", ".wh...")


def seen(case: Case, tmp_path: Path) -> View:
    """What a union shows. Whiteouts of nothing mean nothing; an upper's users may have them, a layer's not."""
    if case.upper:
        return shown_over(tmp_path / "tree", tmp_path / "tree.work", tmp_path / "base")
    view = shown(tmp_path / "tree", tmp_path / "base")
    return {path: line for path, line in view.items() if line != "- " or not path.endswith(_NO_WHITEOUTS)}


def directories(found: dict[str, str]) -> dict[str, str]:
    """Their times."""
    return {
        path: " ".join(line.split()[:2]) for path, line in found.items() if line.startswith("d") and ".wh." not in path
    }


@pytest.mark.parametrize("name", [*LAYERS])
def test_a_repair_that_dies_can_be_seen_by_nobody(name: str, tmp_path: Path) -> None:
    case = LAYERS[name]
    base = store(tmp_path / "base", *BASE)
    for budget in range(20):
        tree = store(tmp_path / f"tree{budget}", *case.lines)
        before = shown(tree, base)
        dying = Dying(tree, budget)
        lowers = [Dying(base, 0)] if case.lowers else []
        try:
            check_layers(dying, lowers=lowers, repair=(dying, None))
        except KeyboardInterrupt:
            assert shown(tree, base) == before
        else:
            break
        finally:
            dying.close()
    else:
        pytest.fail("it never came to its end")


def test_check_changes_nothing_unless_asked(tmp_path: Path) -> None:
    for number, case in enumerate(LAYERS.values()):
        tree = store(tmp_path / str(number), *case.lines)
        before = stored(tree)
        check(tree)
        assert stored(tree) == before


@pytest.mark.needs_root
@requires("root")
def test_marks_of_both_namespaces_are_named_and_left(tmp_path: Path) -> None:
    tree = store(
        tmp_path / "tree", "dir . trusted.overlay.impure=y", "dir d opaque=z", "file f trusted.overlay.origin=%00"
    )
    found = {(f.path, f.rule, f.state) for f in check(tree, repair=True).findings}
    # What is wrong in the other namespace may be right for whom it belongs to.
    assert found == {(b"d", "mixed-namespaces", "left"), (b"f", "bad-origin", "repaired")}
    assert os.getxattr(tree / "d", "user.overlay.opaque") == b"z"


@pytest.mark.needs_root
@requires("root")
def test_an_overlay_inside_makes_nothing_opaque(tmp_path: Path) -> None:
    """Whose whiteouts, in a union of the other namespace, hide what is below."""
    base = store(tmp_path / "base", *BASE)
    lines = ("dir . trusted.overlay.impure=y", "dir d trusted.overlay.origin= opaque=y", "dev d/x", "dev d/no")
    tree = store(tmp_path / "tree", *lines)
    store(tmp_path / "tree.work", "dir work")
    found = {(f.path, f.rule, f.state) for f in check(tree, layers=[base], repair=True).findings}
    assert found == {(b"d", "mixed-namespaces", "left"), (b"d/no", "whiteout-of-nothing", "repaired")}


# the work directory --------------------------------------------------------------------------------------------------
def with_work(tmp_path: Path, *lines: str) -> tuple[Path, Path]:
    upper = store(tmp_path / "u", "dir .")
    return upper, store(tmp_path / "u.work", "dir work", "dir index", *lines)


def findings(upper: Path, *, repair: bool = False, work: Path | None = None) -> list[str]:
    return [
        f"{f.where} {os.fsdecode(f.path)} {f.rule} {f.state}" for f in check(upper, repair=repair, work=work).findings
    ]


def test_orphan_work_files_are_swept(tmp_path: Path) -> None:
    upper, work = with_work(tmp_path, "data work/#1 text", "dir work/#2/deep", "data work/#2/deep/f x", "file index/#3")
    assert findings(upper) == [f"work {name} work-debris found" for name in ("work/#1", "work/#2", "index/#3")]
    assert {line.split()[-1] for line in findings(upper, repair=True)} == {"repaired"}
    assert findings(upper) == []
    assert os.listdir(work / "work") == os.listdir(work / "index") == []


def test_a_work_directory_elsewhere_is_given(tmp_path: Path) -> None:
    upper = store(tmp_path / "u", "dir .")
    work = store(tmp_path / "w", "data work/#1 text")
    assert findings(upper) == []
    assert findings(upper, work=work) == ["work work/#1 work-debris found"]


def test_a_volatile_upper_whose_mark_is_removed_is_like_any_other(tmp_path: Path) -> None:
    upper, _ = with_work(tmp_path, "dir work/incompat")
    assert findings(upper) == []


def test_a_volatile_upper_is_told_and_left(tmp_path: Path) -> None:
    upper, work = with_work(tmp_path, "dir work/incompat/volatile")
    assert findings(upper, repair=True) == ["work work/incompat volatile left"]
    assert (work / "work/incompat/volatile").is_dir()


def test_index_entries_that_belong_to_nothing(tmp_path: Path) -> None:
    origin = f"origin={QUOTED}"
    upper, work = with_work(
        tmp_path,
        f"data index/{ORIGIN.hex()} text {origin} nlink=U-1",
        f"data index/{OTHER.hex()} text {origin} nlink=U+1",
        "data index/nonsense text",
    )
    # The second has another name, so that its data stays.
    os.link(work / f"index/{OTHER.hex()}", upper / "f")
    assert sorted(findings(upper, repair=True)) == sorted(
        [
            f"work index/{ORIGIN.hex()} index-without-names repaired",
            f"work index/{OTHER.hex()} index-origin repaired",
            "work index/nonsense index-name left",
        ]
    )
    assert (upper / "f").read_text() == "text"
    assert os.listdir(work / "index") == ["nonsense"]


def test_a_group_that_only_the_index_stores_is_sound(tmp_path: Path) -> None:
    upper, _ = with_work(tmp_path, f"data index/{ORIGIN.hex()} text origin={QUOTED} nlink=U+1")
    assert findings(upper) == []


def test_a_half_written_group_is_told(tmp_path: Path) -> None:
    upper, _ = with_work(tmp_path, f"data index/{ORIGIN.hex()} text origin={QUOTED}")
    assert findings(upper, repair=True) == [f"work index/{ORIGIN.hex()} index-without-names left"]


# what our own engine and the kernel leave is sound -------------------------------------------------------------------
def test_an_upper_of_our_own_is_sound(tmp_path: Path) -> None:
    base = store(tmp_path / "base", *BASE, "data one linked", "link one two", "link one d/three")
    with union(tmp_path, [base]) as u:
        u.write("one", b"LINKED")
        u.unlink("two")
        u.rename("d", "moved")
        u.unlink("moved/x")
        u.unlink("e/x")
        u.rmdir("e")
        u.mkdir("e")
        u.create("e/new")
        u.setattr("f", mode=0o600)
        u.link("f", "g")
    result = check(tmp_path / "upper", work=tmp_path / "work", layers=[base])
    assert (result.findings, result.work) == ((), True)


def test_an_upper_in_use_is_not_repaired_and_its_work_files_are_its_own(tmp_path: Path) -> None:
    upper, work = with_work(tmp_path, "data work/#1 text")
    store(upper, "dir d opaque=y", "dev d/x")
    record = MountRecord.for_this_process(
        os.fsencode(tmp_path / "m"), [], os.fsencode(upper), os.fsencode(work), "devfuse"
    )
    with Registry().claim(record):
        with pytest.raises(MountError, match="is used by another live mount"):
            check(upper, repair=True)
        assert findings(upper) == ["tree d/x whiteout-in-opaque found"]
    assert os.listdir(work / "work") == ["#1"]


def test_a_layer_of_a_live_mount_is_not_repaired(tmp_path: Path) -> None:
    layer = store(tmp_path / "layer", "file .wh.")
    record = MountRecord.for_this_process(os.fsencode(tmp_path / "m"), [os.fsencode(layer)], None, None, "devfuse")
    with Registry().claim(record), pytest.raises(MountError, match="is used by another live mount"):
        check(layer, repair=True)
    assert check(layer, repair=True).clean


def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    canary = store(tmp_path / "canary", "file .wh.", "dir d opaque=y", "dev d/x", "dev d/.wh..wh.opq")
    before = stored(canary)
    tree = store(
        tmp_path / "tree", "file .wh.", f"symlink d {canary}/d", f"symlink .wh.d {canary}", f"symlink l {canary}"
    )
    work = store(tmp_path / "tree.work", f"symlink work/#1 {canary}", "dir index")
    base = store(tmp_path / "base", f"symlink l {canary}", f"symlink d {canary}")
    check(tree, repair=True, layers=[base])
    assert stored(canary) == before
    assert os.listdir(work / "work") == []
    assert os.stat(tree).st_mtime_ns == TIME


def test_a_deep_tree(tmp_path: Path) -> None:
    fd = os.open(store(tmp_path / "tree", "dir ."), os.O_PATH)
    for _ in range(1000):
        os.mkdir("d" * 20, dir_fd=fd)
        fd, old = os.open("d" * 20, os.O_PATH, dir_fd=fd), fd
        os.close(old)
    os.mknod(".wh.", 0o100600, dir_fd=fd)
    os.close(fd)
    try:
        (finding,) = check(tmp_path / "tree", repair=True, layers=[store(tmp_path / "base", "dir .")]).findings
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)  # pytest's own cleaning recurses
    assert (finding.path.count(b"/"), finding.state) == (1000, "repaired")
