"""`unionfs diff A B`, `--reasons` and `unionfs snapshot` on directories, tars and images: forms, statuses, errors."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from cli import diff_schemas as schemas
from tests.golden.hostile_tars import archive, entry
from tests.requirements import requires
from tests.unit.as_user import run_as_nobody
from tests.unit.cli_images import Cli
from tests.unit.cli_runner import Ran, refused
from unionfs import api
from unionfs.api import Stack
from unionfs.changeset.content import OpenContent
from unionfs.changeset.tar_format import LINK, REG
from unionfs.errors import LayerError, OptionError

THEN = 1_700_000_000 * 10**9


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(capsysbinary, monkeypatch, tmp_path)


def fill(directory: Path, files: dict[str, str | bytes | None]) -> Path:
    """Files with a text, and directories without; all of one time."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            os.utime(path, ns=(THEN, THEN))
    return directory


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    old = fill(tmp_path / "old", {"etc/motd": "one\ntwo\n", "etc/mode": "x", "gone/a": "12345", "same": "s"})
    new = fill(tmp_path / "new", {"etc/motd": "one\n2\n", "etc/mode": "x", "bin": b"a\0b", "same": "s"})
    (new / "etc/mode").chmod(0o600)
    for directory, target in ((old, "a"), (new, "b")):
        (directory / "link").symlink_to(target)
        os.utime(directory / "link", ns=(THEN, THEN), follow_symlinks=False)
        for path in (directory, directory / "etc", old / "gone"):
            os.utime(path, ns=(THEN, THEN))
    return old, new


PLAIN = ["A /bin", "C /etc/mode (mode)", "C /etc/motd (size, content)", "D /gone", "C /link (link)"]


def test_two_directories_differ_with_their_reasons_and_status_1(cli: Cli, two: tuple[Path, Path]) -> None:
    ran = cli.call("diff", *two)
    assert (ran.status, ran.lines, ran.err) == (1, PLAIN, b"")


def test_the_same_is_status_0_and_nothing_on_stdout(cli: Cli, two: tuple[Path, Path]) -> None:
    for form in ((), ("--format", "docker"), ("--content",), ("--format", "{{.Path}}")):
        assert cli.call("diff", two[0], two[0], *form) == Ran(0, b"", b"")
    assert cli.call("diff", two[0], two[0], "--json").out == b"[]\n"
    assert cli.call("diff", two[0], two[0], "--format", "podman") == Ran(0, b"{}\n", b"")
    assert cli.call("diff", two[0], two[0], "--summary") == Ran(
        0, b"0 added, 0 changed, 0 deleted; 0B more, 0B less\n", b""
    )


def test_docker_has_the_directories_above_and_no_reasons(cli: Cli, two: tuple[Path, Path]) -> None:
    lines = ["A /bin", "C /etc", "C /etc/mode", "C /etc/motd", "D /gone", "C /link"]
    ran = cli.call("diff", *two, "--format", "docker")
    assert (ran.status, ran.lines) == (1, lines)
    ran = cli.call("diff", *two, "--format", "podman")
    assert (ran.status, json.loads(ran.out)) == (
        1,
        {"changed": ["/etc", "/etc/mode", "/etc/motd", "/link"], "added": ["/bin"], "deleted": ["/gone"]},
    )


def test_templates_and_tables_have_docker_rules(cli: Cli, two: tuple[Path, Path]) -> None:
    ran = cli.call("diff", *two, "--ignore", "mtime", "--format", "{{.Kind}}{{.Path}} {{.Type}} {{.Reasons}} {{.Size}}")
    assert ran.lines == [
        "A/bin file  3B", "C/etc/mode file mode 1B", "C/etc/motd file size,content 6B", "D/gone dir  ",
        "C/link symlink link ",
    ]  # fmt: skip
    heading, first, *_ = cli.call("diff", *two, "--format", "table").lines
    assert heading.split() == ["KIND", "TYPE", "SIZE", "REASONS", "PATH"] and first.split() == [
        "A",
        "file",
        "3B",
        "/bin",
    ]
    rows = [json.loads(line) for line in cli.call("diff", *two, "--format", "json").lines]
    assert [row["Path"] for row in rows] == ["/bin", "/etc/mode", "/etc/motd", "/gone", "/link"]
    refused(cli.call("diff", *two, "--format", "{{.Nothing}}"), 2, "there is no field Nothing")


def test_json_has_both_sides(cli: Cli, two: tuple[Path, Path]) -> None:
    ran = cli.call("diff", *two, "--json")
    found = {one["path"]: schemas.Difference.model_validate(one) for one in json.loads(ran.out)}
    assert ran.status == 1 and ran.out.isascii()
    mode = found["/etc/mode"]
    assert (mode.kind, mode.type, mode.reasons, mode.mode) == ("C", "file", ["mode"], "0600")
    assert mode.before is not None and mode.after is not None
    assert (mode.before.mode, mode.after.mode) == ("0644", "0600")
    assert found["/bin"].before is None and found["/gone"].after is None
    link = found["/link"]
    assert link.before is not None and link.after is not None and (link.before.target, link.after.target) == ("a", "b")


def test_verbose_shows_what_was_and_what_is(cli: Cli, two: tuple[Path, Path]) -> None:
    os.utime(two[1] / "same", ns=(THEN, THEN + 1_000_000_001))
    lines = cli.call(
        "diff", *two, "-v", "--path", "same", "--path", "/etc/mode", "--path", "link", "--ignore", "owner"
    ).lines
    assert "    mode: 0644 -> 0600" in lines and "    link: a -> b" in lines
    assert "    mtime: 2023-11-14 22:13:20.000000000 -> 2023-11-14 22:13:21.000000001" in lines


def test_times_of_directories_count_only_when_it_is_strict(cli: Cli, two: tuple[Path, Path]) -> None:
    os.utime(two[0] / "etc", ns=(0, THEN + 1))
    assert "C /etc (dirmtime)" in cli.call("diff", *two, "--strict").lines
    assert "C /etc (dirmtime)" not in cli.call("diff", *two).lines
    assert cli.call("diff", *two, "--strict", "--semantic", "--path", "same", "--path", "/etc/motd").lines == [
        "C /etc/motd (size, content)"
    ]


def test_reasons_can_be_ignored(cli: Cli, two: tuple[Path, Path]) -> None:
    os.utime(two[1] / "same", ns=(THEN, THEN + 10**9))
    assert cli.call("diff", *two, "--path", "same").lines == ["C /same (mtime)"]
    for ignored in (
        ("--ignore", "mtime"),
        ("--semantic",),
        ("--ignore", "mode, mtime"),
        ("--ignore", "mode", "--ignore", "mtime"),
    ):
        assert cli.call("diff", *two, "--path", "same", *ignored) == Ran(0, b"", b"")
    refused(cli.call("diff", *two, "--ignore", "mtimes"), 2, "'mtimes' is nothing to ignore", "dirmtime")


def test_sums_of_all_and_of_directories(cli: Cli, two: tuple[Path, Path]) -> None:
    ran = cli.call("diff", *two, "--ignore", "mtime", "--summary")
    assert (ran.status, ran.lines) == (
        1, ["1 added, 3 changed, 2 deleted; 9B more, 13B less; mode 1, size 1, content 1, link 1"],
    )  # fmt: skip
    rows = [line.split() for line in cli.call("diff", *two, "--ignore", "mtime", "--stat").lines]
    assert rows == [
        ["ADDED", "CHANGED", "DELETED", "BYTES+", "BYTES-", "DIRECTORY"],
        ["1", "3", "2", "9B", "13B", "/"], ["0", "2", "0", "6B", "8B", "/etc"], ["0", "0", "1", "0B", "5B", "/gone"],
    ]  # fmt: skip
    tallies = [schemas.Tally.model_validate(one) for one in json.loads(cli.call("diff", *two, "--stat", "--json").out)]
    assert [tally.path for tally in tallies] == ["/", "/etc", "/gone"]
    assert len(cli.call("diff", *two, "--stat", "--depth", "0").lines) == 2
    assert json.loads(cli.call("diff", *two, "--summary", "--json").out)["deleted"] == 2


@requires("patch")
def test_contents_are_a_patch_that_makes_the_one_of_the_other(cli: Cli, two: tuple[Path, Path]) -> None:
    fill(two[1], {"new/file\tname": "n\n", "crlf": b"a\r\nb", "latin": b"\xe9\n"})
    ran = cli.call("diff", *two, "--content")
    assert ran.status == 1 and "A /bin: binary" in ran.lines and "D /gone" in ran.lines
    subprocess.run(["patch", "-p1", "--binary"], input=ran.out, cwd=two[0], check=True, capture_output=True)
    for name in ("etc/motd", "new/file\tname", "crlf", "latin"):
        assert (two[0] / name).read_bytes() == (two[1] / name).read_bytes()


def test_large_files_have_no_lines(cli: Cli, two: tuple[Path, Path]) -> None:
    lines = cli.call("diff", *two, "--content", "--content-limit", "7", "--path", "motd").lines
    assert lines == ["C /etc/motd (size, content): larger than 7 bytes"]


def test_names_are_written_as_they_are(cli: Cli, tmp_path: Path) -> None:
    old, new = fill(tmp_path / "old", {}), fill(tmp_path / "new", {"x\udcff": "1", "new\nline": ""})
    assert cli.call("diff", old, new).out == b"A /new\nline\nA /x\xff\n"
    assert json.loads(cli.call("diff", old, new, "--json").out)[1]["path"] == "/x\udcff"


# other kinds of trees -------------------------------------------------------------------------------------------------
def test_a_tar_is_compared_as_it_lies_there_compressed_or_not(cli: Cli, two: tuple[Path, Path]) -> None:
    with tarfile.open("old.tar", "w") as tar:
        tar.add(two[0], ".")
    Path("old.tar.gz").write_bytes(gzip.compress(Path("old.tar").read_bytes()))
    for name in ("old.tar", "old.tar.gz"):
        assert cli.call("diff", name, two[0]) == Ran(0, b"", b"")
        assert cli.call("diff", two[1], name).status == 1


def test_an_upper_compares_with_the_layer_that_was_committed_from_it(cli: Cli, tmp_path: Path) -> None:
    base = fill(tmp_path / "base", {"etc/motd": "1", "etc/passwd": "2", "srv/a": "3", "kept": "4"})
    with Stack([base], tmp_path / "upper") as stack:
        stack.write_text("etc/motd", "changed")
        stack.unlink("etc/passwd")
        stack.rmtree("srv")
        stack.mkdir("srv")
        stack.write_text("srv/b", "new")
        stack.commit(tmp_path / "layer.tar.gz")
    assert (
        cli.call("diff", f"upper:{tmp_path}/upper", "layer:layer.tar.gz", "--strict", "--exclude", "/srv/a").lines == []
    )
    lines = cli.call("diff", "layer:layer.tar.gz", f"layer:{base}", "--format", "docker").lines
    assert "C /etc/passwd" in lines
    assert cli.call("diff", "layer:layer.tar.gz", f"layer:{base}", "-v", "--path", "passwd").lines == [
        "C /etc/passwd (type)", "    type: whiteout -> file",
    ]  # fmt: skip


def test_images_by_name_id_and_place(cli: Cli, tmp_path: Path) -> None:
    id = cli.import_("one:1", files={"etc/motd": b"hello", "same": b"s"})
    cli.import_("two:1", files={"etc/motd": b"hullo", "same": b"s"})
    assert cli.call("diff", "one:1", "two:1").lines == ["C /etc/motd (content)"]
    cli.image("save", "-o", tmp_path / "one.tar", "one:1")
    cli.image("save", "--format", "oci-archive", "-o", tmp_path / "one.oci.tar", "one:1")
    for other in (id, id[7:19], f"oci:{cli.store}:one:1", "docker-archive:one.tar", "oci-archive:one.oci.tar"):
        assert cli.call("diff", "one:1", other, "--strict") == Ran(0, b"", b"")
    assert cli.call("image", "diff", "two:1", "one:1").lines == ["C /etc", "C /etc/motd"]


def test_what_images_share_is_not_read(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.import_("one:1", files={"large": bytes(1000)})
    cli.image("tag", "one:1", "two:1")
    read: list[int] = []
    original = OpenContent.read

    def reading(self: OpenContent, size: int, offset: int) -> bytes:
        read.append(size)
        return original(self, size, offset)

    monkeypatch.setattr(OpenContent, "read", reading)
    assert cli.call("diff", "one:1", "two:1").status == 0 and read == []
    cli.import_("two:1", files={"large": bytes(1000)})
    assert cli.call("diff", "one:1", "two:1").status == 0 and read == []  # the same bytes are the same layer


def test_links_to_layers_below_are_told_of(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(archive(entry(b"f", REG, b"1"), entry(b"l", LINK, linkname=b"below")))
    ran = cli.call("diff", "l.tar", "l.tar")
    assert ran.status == 0 and ran.errors[0].startswith("warning: 1 hard link leads from l.tar to layers below")


# snapshots ------------------------------------------------------------------------------------------------------------
def test_now_is_compared_with_then(cli: Cli, two: tuple[Path, Path], tmp_path: Path) -> None:
    assert cli.call("snapshot", two[0], "-o", "then.mtree") == Ran(0, b"", b"")
    assert cli.call("snapshot", two[0]).out == (tmp_path / "then.mtree").read_bytes()
    assert cli.call("diff", "then.mtree", two[0], "--strict") == Ran(0, b"", b"")
    (two[0] / "same").write_text("S")
    os.utime(two[0] / "same", ns=(THEN, THEN))
    assert cli.call("diff", "snapshot:then.mtree", two[0]).lines == ["C /same (content)"]
    assert cli.call("diff", "then.mtree", two[0], "--content").lines == ["C /same (content): its data is not at hand"]
    cli.call("snapshot", two[0], "-o", "now.mtree")
    assert cli.call("diff", "then.mtree", "now.mtree").lines == ["C /same (content)"]


def test_a_snapshot_of_a_part(cli: Cli, two: tuple[Path, Path]) -> None:
    ran = cli.call("snapshot", two[0], "-o", "s", "--path", "/etc", "--exclude", "mode", "--json")
    assert json.loads(ran.out) == {"path": os.path.abspath("s"), "objects": 3}
    assert [line.split()[0] for line in Path("s").read_text().splitlines()[2:]] == [".", "./etc", "./etc/motd"]


def test_a_snapshot_that_is_damaged_is_refused_with_the_line(cli: Cli, two: tuple[Path, Path]) -> None:
    cli.call("snapshot", two[0], "-o", "s")
    text = Path("s").read_text().replace("size=", "size=x", 1)
    Path("s").write_text(text)
    refused(cli.call("diff", "s", two[0]), 2, "snapshot s: line ", "mtree(5)")
    refused(cli.call("diff", "snapshot:nowhere", two[0]), 2, "no such file", "unionfs snapshot TREE -o FILE")


# errors ---------------------------------------------------------------------------------------------------------------
def test_trouble_is_status_2(cli: Cli, two: tuple[Path, Path], tmp_path: Path) -> None:
    refused(cli.call("diff", two[0], "nowhere"), 2, "layer nowhere does not exist", "no image in the store")
    refused(cli.call("diff", two[0], "./nowhere"), 2, "does not exist")
    refused(cli.call("diff", two[0], "upper:nowhere"), 2, "does not exist")
    (tmp_path / "text").write_text("no tar")
    refused(cli.call("diff", "text", two[0]), 2, "is not a layer tar", "a layer is a directory, or a tar")
    refused(cli.call("diff", two[0], two[1], "-l", "x"), 2, "give two trees, or -l and -u, not both")
    refused(cli.call("diff", *two, "--stat", "--content"), 2, "--stat and --content do not go together")
    refused(cli.call("diff", *two, "--format", "table", "--json"), 2, "--json and --format do not go together")
    refused(cli.call("diff", *two, "--path", "../x"), 2, "paths go from the root of the tree")
    refused(cli.call("diff"), 2, "give a MOUNTPOINT")
    refused(cli.call("diff", two[0]), 1, "is not a unionfs mount")
    refused(cli.call("snapshot", "nowhere"), 1, "layer nowhere does not exist")
    refused(cli.call("snapshot", two[0], "--json"), 2, "give -o FILE")


@requires("root")
def test_what_may_not_be_read_is_named_and_no_sameness(open_tmp: Path) -> None:
    for name in ("one", "other"):
        fill(open_tmp / name, {"secret": "1", "shut/x": "2", "open": name})
        (open_tmp / name / "secret").chmod(0)
        (open_tmp / name / "shut").chmod(0o700)

    def compare() -> None:
        from tests.unit.cli_runner import program

        for one, other, form in (("one", "one", "--json"), ("one", "other", "--summary")):
            ran = program("diff", open_tmp / one, open_tmp / other, form, env={"UNIONFS_RUNTIME_DIR": str(run)})
            assert ran.status == 2, ran
            assert [line for line in ran.errors if "Permission denied" in line] == [
                f"error: {open_tmp}/one/secret: Permission denied",
                f"error: {open_tmp}/one/shut: Permission denied",
            ]
            assert ran.out == b"[]\n" or b"1 changed" in ran.out

        ran = program("snapshot", open_tmp / "one", "-o", run / "then")
        assert (ran.status, ran.errors[0]) == (1, f"error: {open_tmp}/one/secret: Permission denied")
        assert not (run / "then").exists()

    run = open_tmp / "run"
    run.mkdir()
    os.chown(run, 65534, 65534)
    run_as_nobody(compare)


# one operand ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def changed(cli: Cli, tmp_path: Path) -> list[str]:
    """The options of a stack that was worked in."""
    base = fill(tmp_path / "base", {"etc/motd": "one\n", "etc/passwd": "p", "d/a": "1", "d/b": "2", "h": "h"})
    os.link(base / "h", base / "h2")
    with Stack([base], tmp_path / "upper") as stack:
        stack.write_text("etc/motd", "two\n")
        stack.unlink("etc/passwd")
        stack.rmtree("d")
        stack.mkdir("new")
        stack.write_text("new/file", "n")
        stack.chmod("h", 0o600)
    return ["-l", str(base), "-u", str(tmp_path / "upper")]


def test_changes_of_an_upper_with_their_reasons(cli: Cli, changed: list[str]) -> None:
    assert cli.call("diff", *changed).lines == [
        "D /d", "C /etc", "C /etc/motd", "D /etc/passwd", "C /h", "C /h2", "A /new", "A /new/file",
    ]  # fmt: skip
    ran = cli.call("diff", *changed, "--reasons")
    assert (ran.status, ran.lines) == (0, [
        "D /d", "C /etc (dirmtime)", "C /etc/motd (content, mtime)", "D /etc/passwd", "C /h (mode)", "C /h2 (mode)",
        "A /new", "A /new/file",
    ])  # fmt: skip
    assert cli.call("diff", *changed, "--format", "docker").lines == cli.call("diff", *changed).lines


def test_changes_take_all_the_options(cli: Cli, changed: list[str]) -> None:
    assert cli.call("diff", *changed, "--semantic", "--reasons").lines == [
        "D /d", "C /etc/motd (content)", "D /etc/passwd", "C /h (mode)", "C /h2 (mode)", "A /new", "A /new/file",
    ]  # fmt: skip
    assert cli.call("diff", *changed, "--path", "/new").lines == ["A /new", "A /new/file"]
    assert cli.call("diff", *changed, "--exclude", "new", "--exclude", "/etc", "--exclude", "h*").lines == ["D /d"]
    assert cli.call("diff", *changed, "--ignore", "mode,mtime,dirmtime", "--path", "h", "--path", "h2").lines == []
    assert cli.call("diff", *changed, "--content", "--path", "motd").lines == [
        "--- a/etc/motd", "+++ b/etc/motd", "@@ -1 +1 @@", "-one", "+two",
    ]  # fmt: skip
    assert (
        cli.call("diff", *changed, "--summary").lines[0].startswith("2 added, 4 changed, 4 deleted; 5B more, 7B less")
    )
    rows = json.loads(cli.call("diff", *changed, "--reasons", "--json").out)
    assert schemas.Difference.model_validate(rows[2]).reasons == ["content", "mtime"]
    refused(cli.call("diff", *changed, "--strict"), 2, "--strict is for two trees")


def test_new_names_of_an_old_file_are_told_with_their_reason(cli: Cli, tmp_path: Path) -> None:
    base = fill(tmp_path / "base", {"a": "1"})
    os.link(base / "a", base / "b")
    with Stack([base], tmp_path / "upper") as stack:
        stack.unlink("b")
        stack.write_text("b", "1")
        stack.utime("b", ns=(THEN, THEN))
        stack.chmod("b", 0o644)
    lines = cli.call("diff", "-l", base, "-u", tmp_path / "upper").lines
    told = cli.call("diff", "-l", base, "-u", tmp_path / "upper", "--reasons", "--format", "docker").lines
    assert told == lines and "C /b" in lines
    assert "C /b (hardlink)" in cli.call("diff", "-l", base, "-u", tmp_path / "upper", "--reasons").lines


# the interface in Python ----------------------------------------------------------------------------------------------
def test_in_python_what_cannot_be_read_is_raised_and_ignoring_has_names(two: tuple[Path, Path]) -> None:
    with api.compare(two[0], two[1], ignore=["mtime"]) as comparison:
        found = {difference.path: comparison.text(difference) for difference in comparison}
    assert found[b"etc/mode"] is None and found[b"bin"] == api.Text(note="binary")
    text = found[b"etc/motd"]
    assert text is not None and text.lines[-2:] == (b"-two\n", b"+2\n")
    with pytest.raises(OptionError), api.compare(*two, ignore=["nothing"]):
        pass
    with pytest.raises(LayerError), api.compare(two[0], "./nowhere"):
        pass
