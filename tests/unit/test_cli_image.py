"""`unionfs image`: columns, messages and exit statuses as docker's; what a command does is in tests of the store."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from cli import schemas
from tests.unit.cli_images import Cli, tar_of
from tests.unit.cli_runner import refused
from unionfs.api import Stack


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(capsysbinary, monkeypatch, tmp_path)


# ls ------------------------------------------------------------------------------------------------------------------
def test_an_empty_store_has_headings_and_is_not_made(cli: Cli) -> None:
    assert cli.image("ls") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"
    assert cli.image("ls", "-q") == cli.image("ls", "--format", "json") == ""
    assert not cli.store.exists()


def test_images_are_listed_in_dockers_columns(cli: Cli) -> None:
    id = cli.import_("example.com/a/b:1")
    cli.image("tag", id, "app")
    short = id[7:19]
    heading, *rows = cli.image("ls").splitlines()
    assert heading.split("  ")[0] == "REPOSITORY" and heading.index("TAG") == rows[0].index("1 ")
    cells = sorted([part.strip() for part in row.split("   ") if part.strip()] for row in rows)
    age = cells[0][3]
    assert cells == [["app", "latest", short, age, "10.2kB"], ["example.com/a/b", "1", short, age, "10.2kB"]]
    assert age.endswith(" years ago")


def test_the_options_of_ls_show_more_or_less(cli: Cli) -> None:
    id = cli.import_("app:1")
    assert cli.image("ls", "-q") == id[7:19]
    assert cli.image("ls", "-q", "--no-trunc") == id
    assert id in cli.image("ls", "--no-trunc")
    digest = cli.image("ls", "--format", "{{.Digest}}")
    assert digest.startswith("sha256:") and digest in cli.image("ls", "--digests")
    row = json.loads(cli.image("ls", "--format", "json"))
    assert (row["Repository"], row["Tag"], row["ID"], row["Size"]) == ("app", "1", id[7:19], "10.2kB")
    assert row["CreatedAt"] == "2023-11-14 22:13:20 +0000 UTC"
    assert cli.image("ls", "--format", "", "") == cli.image("ls")
    assert cli.image("ls", "--format", r"table {{.ID}}\t{{.Tag}}") == f"IMAGE ID       TAG\n{id[7:19]}   1"


def test_an_image_without_a_name_is_none(cli: Cli) -> None:
    cli.import_()
    assert cli.names() == ["<none>:<none>"]
    cli.import_("app", files={"x": b""})
    assert cli.image("ls", "--filter", "dangling=true", "--format", "{{.Repository}}") == "<none>"
    assert cli.image("ls", "-f", "dangling=false", "--format", "{{.Repository}}") == "app"
    assert cli.image("ls", "app", "--format", "{{.Tag}}") == "latest"
    assert cli.image("ls", "-f", "reference=a*", "--format", "{{.Tag}}") == "latest"
    refused(cli.call("image", "ls", "--filter", "bogus"), 2, "invalid filter 'bogus'", "dangling=")


# names ---------------------------------------------------------------------------------------------------------------
def test_tags_come_and_go(cli: Cli) -> None:
    id = cli.import_("app:1")
    assert cli.image("tag", "app:1", "app:2") == ""
    assert cli.image("tag", id[7:17], "other") == ""
    assert sorted(cli.names()) == ["app:1", "app:2", "other:latest"]
    assert cli.image("untag", "app:1", "app:2") == ""
    assert sorted(cli.names()) == ["app:1", "other:latest"]
    assert cli.image("rm", "other") == "Untagged: other:latest"
    assert cli.image("untag", "app:1") == ""
    assert cli.names() == ["<none>:<none>"]


def test_an_image_goes_with_its_last_name(cli: Cli) -> None:
    id = cli.import_("app:1")
    layer = cli.image("inspect", "--format", '{{join .RootFS.Layers ","}}', "app:1")
    assert cli.image("rm", "app:1") == f"Untagged: app:1\nDeleted: {id}\nDeleted: {layer}"
    assert cli.names() == []


def test_an_image_with_two_names_is_not_removed_by_its_id_but_by_force(cli: Cli) -> None:
    id = cli.import_("app:1")
    cli.image("tag", "app:1", "other:1")
    refused(cli.call("image", "rm", id), 1, "image is referenced in multiple repositories", "force")
    lines = cli.image("rm", "-f", id).splitlines()
    assert sorted(lines[:2]) == ["Untagged: app:1", "Untagged: other:1"] and lines[2] == f"Deleted: {id}"


def test_what_is_not_there_is_an_error_unless_forced(cli: Cli) -> None:
    cli.import_("app:1")
    ran = cli.call("image", "rm", "nonsuch", "app:1")
    assert ran.status == 1 and ran.lines[0] == "Untagged: app:1"
    assert ran.errors == ["error: No such image: nonsuch:latest", "hint: unionfs image ls lists those there are"]
    forced = cli.call("image", "rm", "-f", "nonsuch")
    assert (forced.status, forced.errors[0]) == (0, "error: No such image: nonsuch:latest")


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("tag", "nonsuch", "x"), "No such image: nonsuch:latest"),
        (("tag", "app", "Upper"), "invalid reference format: repository name (library/Upper) must be lowercase"),
        (("tag", "app", "f" * 64), "cannot specify 64-byte hexadecimal strings"),
        (("untag", "nonsuch"), "No such image: nonsuch:latest"),
        (("untag", "app", "other"), "app has no tag other"),
        (("history", "nonsuch"), "No such image: nonsuch:latest"),
        (("diff", "nonsuch"), "No such image: nonsuch:latest"),
        (("verify", "nonsuch"), "No such image: nonsuch:latest"),
        (("export", "-o", "x", "nonsuch"), "No such image: nonsuch:latest"),
        (("save", "-o", "x", "nonsuch"), "No such image: nonsuch:latest"),
        (("changes", "--rm", "nonsuch"), "no changes are kept as nonsuch"),
    ],
)
def test_errors_are_one_line_and_a_hint(cli: Cli, argv: tuple[str, ...], error: str) -> None:
    cli.import_("app")
    ran = cli.call("image", *argv)
    refused(ran, 1, error)
    assert ran.errors[1].startswith("hint: ") and len(ran.errors) == 2
    assert not Path("x").exists()


# inspect and history -------------------------------------------------------------------------------------------------
def test_inspect_is_an_array_in_dockers_form(cli: Cli) -> None:
    id = cli.import_("app:1", "-c", 'CMD ["a","b"]', "-c", "ENV A=1", "-m", "hello")
    (image,) = json.loads(cli.image("inspect", "app:1"))
    assert (image["Id"], image["RepoTags"], image["Comment"]) == (id, ["app:1"], "hello")
    assert (image["Config"]["Cmd"], image["Config"]["Env"]) == (["a", "b"], ["A=1"])
    assert image["Created"] == "2023-11-14T22:13:20Z" and image["Os"] == "linux"
    line = '["a","b"] hello'
    assert cli.image("inspect", "-f", "{{json .Config.Cmd}} {{.Comment}}", "app:1", id) == f"{line}\n{line}"
    ran = cli.call("image", "inspect", "nonsuch", "app:1")
    assert ran.status == 1 and [image["Id"] for image in json.loads(ran.out)] == [id]
    assert ran.errors[0] == "error: No such image: nonsuch:latest"
    assert cli.call("image", "inspect", "nonsuch").out == b"[]\n"


def test_inspect_of_what_an_image_does_not_say_is_as_dockers(cli: Cli) -> None:
    """Asked of docker 20.10 about such an image."""
    cli.import_("app:1", "-c", "LABEL org.example.a=b")
    asked = (
        "{{.Config.Entrypoint}} {{.Config.ExposedPorts}} {{json .Config.Healthcheck}} [{{.Config.User}}{{.Variant}}]"
    )
    for verb in (("image", "inspect"), ("inspect", "--type", "image")):
        assert cli.run(*verb, "-f", asked, "app:1") == "[] map[] null []"
        assert (
            cli.run(*verb, "-f", '{{index .RepoTags 0}} {{index .Config.Labels "org.example.a"}}', "app:1") == "app:1 b"
        )
        refused(cli.call(*verb, "-f", "{{.Config.Bogus}}", "app:1"), 2, "there is no .Config.Bogus in it", "--help")
        assert cli.run(*verb, "-f", "", "app:1") == cli.run(*verb, "app:1")


def test_history_is_in_dockers_columns(cli: Cli) -> None:
    id = cli.import_("app:1", "-m", "a" * 60)
    heading, row = cli.image("history", "app:1").splitlines()
    assert heading.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert row.startswith(id[7:19]) and row.endswith("a" * 60) and " years ago" in row
    numbers = cli.image("history", "--no-human", "app:1").splitlines()
    assert numbers[0].startswith("IMAGE          CREATED AT") and "2023-11-14T22:13:20Z" in numbers[1]
    assert "10240" in numbers[1]
    assert cli.image("history", "-q", "--no-trunc", "app:1") == id
    told = json.loads(cli.image("history", "--format", "json", "app:1"))
    assert sorted(told) == ["Comment", "CreatedAt", "CreatedBy", "CreatedSince", "ID", "Size"]


# save, load, import, export ------------------------------------------------------------------------------------------
def test_what_was_saved_is_loaded_again(cli: Cli, tmp_path: Path) -> None:
    one, two = cli.import_("app:1"), cli.import_("app:2", files={"two": b"2"})
    cli.import_("other", files={"three": b"3"})
    archive = tmp_path / "saved.tar"
    assert cli.image("save", "-o", archive, "app") == ""  # the repository: both tags
    assert cli.call("image", "save", "app").out == archive.read_bytes()
    cli.image("rm", "app:1", "app:2", "other")
    assert sorted(cli.image("load", "-i", archive).splitlines()) == ["Loaded image: app:1", "Loaded image: app:2"]
    assert sorted(cli.image("load", "-q", "-i", archive).splitlines()) == ["Loaded image: app:1", "Loaded image: app:2"]
    assert sorted(cli.image("ls", "-q", "--no-trunc").splitlines()) == sorted([one, two])


def test_load_tells_of_images_without_names_and_of_names_that_move(cli: Cli, tmp_path: Path) -> None:
    archive = tmp_path / "saved.tar"
    id = cli.import_("app:1")
    cli.image("save", "-o", archive, id)
    assert cli.image("load", "-i", archive) == f"Loaded image ID: {id}"
    cli.image("save", "-o", archive, "app:1")
    other = cli.import_("app:1", files={"other": b""})
    assert cli.image("load", "-i", archive) == (
        f"The image app:1 already exists, renaming the old one with ID {other} to empty string\nLoaded image: app:1"
    )


def test_load_reads_its_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.import_("app:1")
    archive = cli.call("image", "save", "app:1").out
    cli.image("rm", "app:1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(archive)))
    assert cli.image("load") == "Loaded image: app:1"


def test_no_archive_goes_to_a_terminal_or_comes_from_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.import_("app:1")
    main, terminal = os.openpty()
    try:
        with open(terminal, "w", closefd=False) as tty:
            for verb in ("save", "export"):
                with monkeypatch.context() as patch:
                    patch.setattr(sys, "stdout", tty)
                    ran = cli.call("image", verb, "app:1")
                refused(ran, 1, "cowardly refusing to save to a terminal. Use the -o flag or redirect", "-o FILE")
        with open(terminal, closefd=False) as tty:
            monkeypatch.setattr(sys, "stdin", tty)
            refused(cli.call("image", "load"), 1, "requested load from stdin, but stdin is empty", "-i FILE")
            refused(cli.call("image", "import", "-"), 1, "requested import from stdin, but stdin is empty", "pipe")
        monkeypatch.setattr(sys, "stdin", None)  # closed: `<&-`
        refused(cli.call("image", "load"), 1, "requested load from stdin, but stdin is empty", "-i FILE")
    finally:
        os.close(main)
        os.close(terminal)


def test_what_is_no_archive_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    (tmp_path / "other.tar").write_bytes(tar_of({"a": b""}))
    for name in ("junk", "other.tar"):
        ran = cli.call("image", "load", "-i", tmp_path / name)
        assert (ran.status, ran.out) == (1, b"") and ran.errors[0].startswith("error: ")
    refused(cli.call("image", "load", "-i", tmp_path / "nonsuch"), 1, "nonsuch: No such file or directory")
    assert cli.names() == []


def test_import_says_where_from_and_exports_the_same(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"etc/motd": b"hello", "run": b"x"}
    id = cli.import_("app", files=files)
    assert cli.import_("app", files=files) == id  # SOURCE_DATE_EPOCH
    assert cli.image("history", "--format", "{{.Comment}}", "app") == f"Imported from {tmp_path}/import.tar"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(tar_of(files))))
    assert cli.image("import", "-", "piped") != id  # its comment is another
    cli.image("export", "-o", tmp_path / "root.tar", "app")
    with tarfile.open(tmp_path / "root.tar") as tar:
        assert {name: tar.extractfile(name).read() for name in files} == files  # type: ignore[union-attr]
    assert cli.call("image", "export", "app").out == (tmp_path / "root.tar").read_bytes()


def test_import_takes_changes_and_refuses_bad_ones_before_it_reads(cli: Cli, tmp_path: Path) -> None:
    refused(cli.call("image", "import", "-c", "RUN x", tmp_path / "import.tar"), 1, "import.tar: No such file")
    (tmp_path / "import.tar").write_bytes(b"no tar")
    refused(
        cli.call("image", "import", "-c", "RUN x", tmp_path / "import.tar"),
        1,
        "RUN is not a valid change command",
        "CMD",
    )
    refused(cli.call("image", "import", "https://example.com/x.tar"), 1, "is not fetched", "curl")
    refused(cli.call("image", "import", tmp_path), 1, f"{tmp_path} is a directory", f"tar -C {tmp_path} -c .")


# upkeep --------------------------------------------------------------------------------------------------------------
def test_prune_asks_and_removes_what_has_no_name(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    id = cli.import_()
    cli.import_("app", files={"x": b""})
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    ran = cli.call("image", "prune")
    assert ran.status == 0 and ran.out.endswith(b"Are you sure you want to continue? [y/N] ")
    assert len(cli.names()) == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    said = cli.image("prune")
    assert f"Deleted Images:\ndeleted: {id}\n" in said and said.splitlines()[-1].startswith("Total reclaimed space: 1")
    assert cli.names() == ["app:latest"]
    assert cli.image("prune", "-f") == "Total reclaimed space: 0B"
    assert "untagged: app:latest" in cli.image("prune", "-a", "-f")
    assert cli.names() == []


def test_verify_says_nothing_of_what_is_whole_and_names_what_is_not(cli: Cli) -> None:
    cli.import_("app")
    assert cli.image("verify") == cli.image("verify", "app") == ""
    blob = max((cli.store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[600] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    ran = cli.call("image", "verify")
    assert ran.status == 1 and blob.name in ran.lines[0]
    assert ran.errors == [f"hint: remove the damaged files in {cli.store}/blobs, and load or pull their images again"]
    ran = cli.call("image", "verify", "--json")
    assert [schemas.Fault.model_validate(fault) for fault in json.loads(ran.out)]


def test_what_is_damaged_is_told_of_and_can_be_removed_or_loaded_again(cli: Cli, tmp_path: Path) -> None:
    cli.import_("app")
    cli.image("tag", "app", "site")
    cli.import_("whole", files={"x": b"1"})
    cli.image("save", "app", "-o", tmp_path / "app.tar")
    digest = cli.image("ls", "app", "--format", "{{.Digest}}")
    manifest = cli.store / "blobs/sha256" / digest[7:]
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")
    ran = cli.call("image", "ls", "--format", "{{.Repository}}")
    assert (ran.status, ran.lines) == (0, ["whole"])
    assert ran.errors[0] == "warning: app:latest is damaged, and is not listed"
    refused(cli.call("image", "history", "app"), 1, "has 2 bytes, not", "load the image again")
    refused(cli.call("image", "prune", "-f"), 1, "nothing is removed: ", "unionfs image verify")
    # With what another image needs unknown, names and images go all the same.
    assert cli.image("rm", "site") == "Untagged: site:latest"
    assert cli.image("rm", "whole").splitlines()[0] == "Untagged: whole:latest"
    assert cli.image("load", "-i", tmp_path / "app.tar") == "Loaded image: app:latest"
    assert cli.names() == ["app:latest"]
    cli.image("prune", "-f")
    assert cli.image("verify") == ""
    assert len(list((cli.store / "blobs/sha256").iterdir())) == 3


# diff ----------------------------------------------------------------------------------------------------------------
def test_diff_of_two_images_and_of_one(cli: Cli) -> None:
    cli.import_("a", files={"same": b"1", "gone": b"2", "changed": b"3"})
    cli.import_("b", files={"same": b"1", "new": b"2", "changed": b"33"})
    assert cli.image("diff", "b", "a").splitlines() == ["C /changed", "D /gone", "A /new"]
    assert cli.image("diff", "b").splitlines() == ["A /changed", "A /new", "A /same"]
    changes = [schemas.Change.model_validate(change) for change in json.loads(cli.image("diff", "--json", "b", "a"))]
    assert [(change.kind, change.path) for change in changes] == [("C", "/changed"), ("D", "/gone"), ("A", "/new")]
    assert cli.image("diff", "a", "a") == ""


# elsewhere -----------------------------------------------------------------------------------------------------------
def test_check_takes_images_as_layers(cli: Cli, tmp_path: Path) -> None:
    cli.import_("app", files={"etc/motd": b"hello"})
    upper = tmp_path / "upper"
    with Stack(["app"], upper) as stack:
        stack.unlink("etc/motd")
    assert cli.run("check", "-l", "app", upper) == ""
    cli.import_("other", files={"x": b""})
    ran = cli.call("check", "-l", "other", upper)
    assert ran.status == 1 and "/etc/motd" in ran.lines[0]


# stores --------------------------------------------------------------------------------------------------------------
def test_the_store_is_named_before_the_verb(cli: Cli, tmp_path: Path) -> None:
    cli.import_("app")
    there = tmp_path / "elsewhere"
    assert cli.run("--store", there, "image", "ls", "-q") == cli.run("image", "--store", there, "ls", "-q") == ""
    assert not there.exists()
    assert cli.run("--store", tmp_path / "nowhere", "image", "--store", cli.store, "ls", "-q") == cli.image("ls", "-q")
    (tmp_path / "file").touch()
    refused(cli.call("--store", tmp_path / "file", "image", "ls"), 1, "is no image store", "OCI image layout")


def test_a_time_that_is_none_is_a_usage_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    refused(cli.call("image", "import", "x.tar"), 2, "SOURCE_DATE_EPOCH is no number of seconds", "import --help")
