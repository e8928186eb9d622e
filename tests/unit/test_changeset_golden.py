"""Golden changesets: fixed trees, and exactly the changes, the members and the diff_id that they must give.

A changed diff_id means that layers written by another version of this program no longer have the same digest: that is a
change people see. tests/golden/trees.py describes the format of the trees; `[members]` are name, type and link target.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from tests.golden.trees import build, describe
from tests.requirements import requires
from tests.unit.changeset_rig import copy_tree
from unionfs.changeset.apply import apply
from unionfs.changeset.diff import diff
from unionfs.changeset.tar_reader import TarReader
from unionfs.changeset.tar_writer import write_layer_stream
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.layer import Layer
from unionfs.overlay import UnionFilesystem
from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.vfs import Filesystem

pytestmark = requires("root")

GOLDEN = Path(__file__).parents[1] / "golden/changesets"
FILES = sorted(GOLDEN.glob("*.txt"))


def sections(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


class Case:
    def __init__(self, path: Path, base: Path) -> None:
        self.wanted = sections(path)
        for name in ("before", "upper", "after"):
            (base / name).mkdir()
            build(base / name, self.wanted[name])
        self.base = base
        (clamp,) = self.wanted.get("clamp", ["-1"])
        self.clamp = None if clamp == "-1" else int(clamp)

    def check(self, before: Filesystem, after: Filesystem, upper: Layer) -> bytes:
        assert [quoted(change.text()) for change in diff(before, after, upper)] == self.wanted["diff"]
        out = io.BytesIO()
        layer = write_layer_stream(before, after, upper, out, clamp_mtime=self.clamp)
        members = [
            " ".join(quote_from_bytes(field, safe="/.+-_") for field in (m.name, m.type, m.linkname)).strip()
            for m in TarReader(io.BytesIO(out.getvalue()))
        ]
        assert members == self.wanted["members"]
        assert [layer.diff_id] == self.wanted["diff_id"]
        return out.getvalue()


def quoted(line: str) -> str:
    return quote_from_bytes(os.fsencode(line), safe="/.+-_ #")


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


def test_plain_directories(case: Case) -> None:
    before, after = LoopbackFilesystem(f"{case.base}/before"), LoopbackFilesystem(f"{case.base}/after")
    upper = DirectoryLayer(str(case.base / "upper"))
    data = case.check(before, after, upper)
    after.close()
    before.close()
    upper.close()
    (case.base / "applied").mkdir()
    copy_tree(case.base / "before", case.base / "applied")
    apply(io.BytesIO(data), str(case.base / "applied"))
    if case.clamp is None:
        assert describe(case.base / "applied") == describe(case.base / "after")


def test_the_engine(case: Case) -> None:
    """The same bytes where the union is made by our engine from the lower and the stored upper."""
    before = UnionFilesystem([DirectoryLayer(str(case.base / "before"))])
    lowers = [DirectoryLayer(str(case.base / "upper")), DirectoryLayer(str(case.base / "before"))]
    after = UnionFilesystem(lowers)
    upper = DirectoryLayer(str(case.base / "upper"))
    case.check(before, after, upper)
    after.close()
    before.close()
    upper.close()


def test_there_are_golden_changesets() -> None:
    assert {path.stem for path in FILES} >= {"plain", "whiteouts", "opaque", "names", "links", "clamped"}
