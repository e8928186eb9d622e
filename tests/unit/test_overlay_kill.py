"""Every operation of test_overlay_faults.py, its process ending before every call it makes on the upper, and after the
last one.

The process is a real one, forked, and ends by os._exit: nothing is cleaned up, taken back or closed. (To die after
a call is to die before the next.) What it leaves is then looked at by a new union and by the kernel's overlayfs, in
turns one before the other, since each sweeps the work directory: both must show the tree as it was or as it was to be,
in everything but the times of directories, which a copy-up puts back after its rename (as the kernel does, "best
effort"). And the operation, where it was not done, must succeed now.
"""

from __future__ import annotations

import os
import shutil
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.trees import describe
from tests.requirements import missing
from tests.rigs import Backing
from tests.unit.overlay_rig import union
from tests.unit.test_overlay_faults import CASES, CHANGING, Case, Fault, failing, holding, lowers, plain, seen
from unionfs import api
from unionfs.linux.mount import MNT_DETACH, mount, umount2
from unionfs.overlay import UnionOptions

_DIED, _DONE, _WRONG = 3, 4, 5
#: mtime of all that exists beforehand; whatever is later than what tests set (10**18) is "now".
_PAST, _LATEST = 9 * 10**17, 10**18
_KERNEL = missing("root", "overlayfs") is None

Tree = dict[str, tuple[object, ...]]


class Death(Fault):
    """Ends the process before the call number `at`."""

    def check(self, call: str) -> None:
        if self.at is not None and call in self.calls:
            self.at -= 1
            if self.at < 0:
                os._exit(_DIED)


def in_a_process(work: Callable[[], None]) -> bool:
    """Run `work` in a process that ends with it, without any clean-up. Did it die on the way?"""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(_DONE)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(_WRONG)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (_DIED, _DONE), f"the process ended with {status}"
    return status == _DIED


def dies(place: Path, layers: list[Path], case: Case, at: int) -> bool:
    """The operation by a process that dies before its call number `at`, or after all of them: then False."""
    fault = Death(0, CHANGING)

    def work() -> None:
        with union(place, layers, upper=failing(fault), options=case.options) as u:
            case.prepare(u)
            with holding(u, case.held):
                fault.arm(at)
                case.operate(u)
                os._exit(_DONE)

    return in_a_process(work)


# what people see --------------------------------------------------------------------------------------------------
def visible(tree: Tree) -> Tree:
    """Without the times of directories; and a time that the clock said is "now"."""
    found: Tree = {}
    for path, (mode, uid, gid, nlink, mtime, what, xattrs) in tree.items():
        assert isinstance(mode, int) and isinstance(mtime, int)
        when = 0 if stat.S_ISDIR(mode) else mtime if mtime <= _LATEST else -1
        found[path] = (mode, uid, gid, nlink, when, what, xattrs)
    return found


def ours(place: Path, layers: list[Path]) -> Tree:
    with union(place, layers) as u:
        return plain(seen(u))


def kernels(place: Path, layers: list[Path]) -> Tree:
    """The same, as the kernel's overlayfs shows it."""
    mountpoint = place / "mnt"
    mountpoint.mkdir(exist_ok=True)
    options = (
        f"lowerdir={':'.join(map(str, layers))},upperdir={place}/upper,workdir={place}/work,"
        "redirect_dir=on,index=on,xino=auto,metacopy=on"
    )
    mount(b"overlay", os.fsencode(mountpoint), b"overlay", 0, options.encode())
    try:
        return dict(_walked(str(mountpoint), ""))
    finally:
        umount2(os.fsencode(mountpoint), MNT_DETACH)


def _walked(root: str, path: str) -> list[tuple[str, tuple[object, ...]]]:
    full = f"{root}/{path}"
    st = os.lstat(full)
    xattrs = [
        (os.fsencode(name), os.getxattr(full, name, follow_symlinks=False))
        for name in sorted(os.listxattr(full, follow_symlinks=False))
    ]
    what: object = None
    below: list[tuple[str, tuple[object, ...]]] = []
    if stat.S_ISDIR(st.st_mode):
        names = sorted(os.listdir(full))
        what = tuple(names)
        for name in names:
            below += _walked(root, f"{path}/{name}" if path else name)
    elif stat.S_ISLNK(st.st_mode):
        what = os.fsencode(os.readlink(full))
    elif stat.S_ISREG(st.st_mode):
        what = Path(full).read_bytes()
    nlink = 0 if stat.S_ISDIR(st.st_mode) else st.st_nlink
    return [(path, (st.st_mode, st.st_uid, st.st_gid, nlink, st.st_mtime_ns, what, xattrs)), *below]


def difference(tree: Tree, *others: Tree) -> str:
    """What each of `others` has otherwise, for people."""
    lines = []
    for other in others:
        for path in sorted(tree.keys() | other.keys()):
            if tree.get(path) != other.get(path):
                lines.append(f"{path!r}: {str(tree.get(path))[:300]}\n   not {str(other.get(path))[:300]}")
        lines.append("--")
    return "\n".join(lines)


# the sweep --------------------------------------------------------------------------------------------------------
def old_layers(base: Path) -> list[Path]:
    layers = lowers(base)
    for layer in layers:
        for directory, directories, files in os.walk(layer, topdown=False):
            for path in [os.path.join(directory, name) for name in files + directories] + [directory]:
                os.utime(path, ns=(_PAST, _PAST), follow_symlinks=False)
    return layers


def before_and_after(place: Path, layers: list[Path], case: Case) -> tuple[Tree, Tree]:
    """The tree that the operation finds, and the one it makes, when nothing goes wrong."""
    with union(place, layers, options=case.options) as u:
        case.prepare(u)
    before = ours(place, layers)
    with union(place, layers, options=case.options) as u:
        case.operate(u)
    return visible(before), visible(ours(place, layers))


def is_allowed(tree: Tree, before: Tree, after: Tree, case: Case) -> bool:
    if tree in (before, after):
        return True
    if case.time_late:
        return timeless(tree, case) in (timeless(before, case), timeless(after, case))
    # RENAME_WHITEOUT of a mount on top of ours: the visible whiteout comes after the rename.
    late = {path for path in before if path not in tree}
    return case.whiteout_late and len(late) == 1 and set(tree) == set(after) - late


def timeless(tree: Tree, case: Case) -> Tree:
    late = case.time_late.split()
    return {path: (*values[:4], 0, *values[5:]) if path in late else values for path, values in tree.items()}


def look(place: Path, layers: list[Path], case: Case, kernel_first: bool) -> Tree:
    """The tree that is left, as both show it; the work directory is swept."""
    kernel = _KERNEL and not (case.whiteout_late or case.inner_whiteout)  # which the kernel does not know
    there = kernels(place, layers) if kernel and kernel_first else None
    with union(place, layers) as u:
        assert os.listdir(place / "work/work") == []
        here = plain(seen(u))
    if kernel:
        there = there or kernels(place, layers)
        assert here == there, f"the kernel sees another tree:\n{difference(here, there)}"
    found = api.check(place / "upper", layers=layers, work=place / "work").findings
    # That one does no harm: what it replaced by RENAME_EXCHANGE is where it should be, and it was to be unlinked next.
    assert {one.rule for one in found} <= {"whiteout-of-nothing"}, found
    return here


@pytest.mark.parametrize("name", CASES)
def test_process_dying_at_every_call_leaves_the_old_or_the_new(backing: Backing, name: str) -> None:
    case = CASES[name]
    base = backing.directory("kill")
    layers = old_layers(base)
    below = describe(base)[1:]
    (base / "reference").mkdir()
    before, after = before_and_after(base / "reference", layers, case)
    shutil.rmtree(base / "reference")
    at, died = 0, True
    while died:
        place = base / str(at)
        place.mkdir()
        died = dies(place, layers, case, at)
        tree = look(place, layers, case, kernel_first=bool(at % 2))
        left = visible(tree)
        assert is_allowed(left, before, after, case), f"call {at} of {died}:\n{difference(left, before, after)}"
        if died and left == before:
            with union(place, layers, options=case.options) as u:
                case.operate(u)
            again = visible(ours(place, layers))
            assert again == after, f"the second run, after call {at}:\n{difference(again, after)}"
        assert died or left == after, "what was done is not there"
        shutil.rmtree(place)
        at += 1
        assert at < 200, "more than 200 calls for one operation"
    assert at > 1 or before == after, "the operation changed something without any call"
    assert describe(base)[1:] == below, "a lower layer was changed"
    shutil.rmtree(base)


def test_process_dying_while_it_opens_a_union(backing: Backing) -> None:
    """The work directory is made, swept and probed; an earlier death has left something in it."""
    case = CASES["mkdir over a lower directory's whiteout"]
    base = backing.directory("kill")
    layers = old_layers(base)
    place = base / "place"
    place.mkdir()
    assert dies(place, layers, case, 1)
    assert os.listdir(place / "work/work")
    before = visible(plain_tree(place, layers))
    at, died = 0, True
    while died:
        fault = Death(0, CHANGING)
        fault.arm(at)

        def work(fault: Death = fault) -> None:
            with union(place, layers, upper=failing(fault)):
                os._exit(_DONE)

        died = in_a_process(work)
        assert visible(plain_tree(place, layers)) == before
        at += 1
    assert at > 5
    assert visible(look(place, layers, case, kernel_first=False)) == before
    shutil.rmtree(base)


def plain_tree(place: Path, layers: list[Path]) -> Tree:
    """What a union shows that touches nothing, so that what is in the work directory stays."""
    with union(place, layers, options=UnionOptions(read_only=True)) as u:
        return plain(seen(u))
