"""`unionfs which` on layers: text as people see it, JSON, tars, images, errors."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from cli import which_schemas as schemas
from tests.unit.cli_runner import Ran, call, refused
from tests.unit.overlay_rig import tree
from unionfs import api
from unionfs.api import Stack

Capture = pytest.CaptureFixture[bytes]


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two layers, as directories and as tars, and an upper that has been worked in."""
    monkeypatch.setenv("UNIONFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "base", etc__motd="base", etc__passwd="root", srv__x="x")
    tree(tmp_path / "top", etc__motd="the top")
    os.symlink("etc", "base/link")
    for name in ("base", "top"):
        with tarfile.open(f"{name}.tar", "w") as tar:
            tar.add(name, ".")
    with Stack(["top", "base"], "upper") as stack:
        stack.unlink("etc/passwd")
        stack.write_text("new", "new")
    return tmp_path


def run(capture: Capture, *more: str, layers: tuple[str, ...] = ("top", "base"), upper: bool = True) -> Ran:
    above = ("-u", "upper") if upper else ()
    return call(capture, "which", *(word for layer in layers for word in ("-l", layer)), *above, *more)


def test_which_says_what_wins_what_is_hidden_and_where_the_bytes_are(capsysbinary: Capture, changed: Path) -> None:
    ran = run(capsysbinary, "/etc/motd")
    assert (ran.status, ran.err) == (0, b"")
    assert (
        ran.out.decode()
        == f"""\
/etc/motd: file of layer 1

  layer 1  wins    file  /etc/motd
  layer 2  hidden  file  /etc/motd
           hidden by /etc/motd in layer 1

layer 1  {changed}/top
layer 2  {changed}/base
bytes: {changed}/top/etc/motd
"""
    )


@pytest.mark.needs_root
def test_which_of_a_deleted_name_says_by_what_and_what_lies_below(capsysbinary: Capture, changed: Path) -> None:
    assert (
        run(capsysbinary, "etc/passwd").out.decode()
        == f"""\
/etc/passwd: not there, hidden by the whiteout /etc/passwd in upper

  upper    whiteout  whiteout  /etc/passwd
  layer 2  hidden    file      /etc/passwd
           hidden by the whiteout /etc/passwd in upper

upper    {changed}/upper
layer 2  {changed}/base
"""
    )


@pytest.mark.needs_root
def test_which_of_a_renamed_directory_and_of_what_is_in_it(capsysbinary: Capture, changed: Path) -> None:
    with Stack(["top", "base"], "upper") as stack:
        stack.rename("srv", "www")
    assert (
        run(capsysbinary, "www").out.decode()
        == f"""\
/www: dir of upper and layer 2, merged

  upper    wins    dir  /www
           redirect: srv
  layer 2  merged  dir  /srv

upper    {changed}/upper
layer 2  {changed}/base
"""
    )
    assert run(capsysbinary, "www/x").lines[:4] == [
        "/www/x: file of layer 2",
        "redirect: /www in upper goes on below as srv",
        "",
        "  layer 2  wins  file  /srv/x",
    ]


def test_which_all_lists_a_directory_with_the_layers_and_what_they_hide(capsysbinary: Capture, changed: Path) -> None:
    assert (
        run(capsysbinary, "--all", ".").out.decode()
        == f"""\
dir      upper 1 2  etc
symlink  2          link
file     upper      new
dir      2          srv

upper    {changed}/upper
layer 1  {changed}/top
layer 2  {changed}/base
"""
    )
    assert run(capsysbinary, "--all", "etc").lines[0] == "file  1 (2)  motd"


@pytest.mark.parametrize("layers", [("top.tar", "base.tar"), ("top", "base.tar")])
def test_tars_are_told_apart_and_the_offset_is_that_of_the_data(
    capsysbinary: Capture, changed: Path, layers: tuple[str, ...]
) -> None:
    for path, number, data in (("etc/motd", 1, b"the top"), ("srv/x", 2, b"x")):
        told = schemas.Which.model_validate_json(run(capsysbinary, path, "--json", layers=layers, upper=False).out)
        assert [part.place.layer for part in told.parts if part.role == "wins"] == [number]
        assert told.layers == [None, *(str(changed / layer) for layer in layers)]
        assert told.data is not None and told.data.size == len(data)
        with open(told.data.file, "rb") as file:
            file.seek(told.data.offset or 0)
            assert file.read(told.data.size) == data
        if layers[number - 1].endswith(".tar"):
            assert (told.data.file, told.data.offset is None) == (str(changed / layers[number - 1]), False)
            text = run(capsysbinary, path, layers=layers, upper=False).lines[-1]
            assert text == f"bytes: {told.data.size} at offset {told.data.offset} of {told.data.file}"


def test_the_layers_of_an_image_are_numbered_in_its_place(capsysbinary: Capture, changed: Path) -> None:
    api.import_image(api.image_store("store"), "base.tar", "app")
    ran = call(capsysbinary, "--store", "store", "which", "-l", "top", "-l", "app", "etc/motd", "--json")
    told = schemas.Which.model_validate_json(ran.out)
    assert [(part.place.layer, part.role) for part in told.parts] == [(1, "wins"), (2, "hidden")]
    assert len(told.layers) == 3 and told.layers[2] is not None and "sha256" in told.layers[2]


def test_a_tars_hard_link_to_what_a_layer_below_has_leads_there(capsysbinary: Capture, changed: Path) -> None:
    with tarfile.open("link.tar", "w") as tar:
        member = tarfile.TarInfo("name")
        member.type, member.linkname = tarfile.LNKTYPE, "etc/passwd"
        tar.addfile(member)
    told = schemas.Which.model_validate_json(
        run(capsysbinary, "name", "--json", layers=("link.tar", "base"), upper=False).out
    )
    assert [(part.role, part.link_below) for part in told.parts] == [("wins", "etc/passwd")]
    assert told.data is not None and told.data.file == str(changed / "base/etc/passwd")


def test_json_follows_its_schema_for_names_that_are_no_utf8_too(capsysbinary: Capture, changed: Path) -> None:
    with Stack(["top", "base"], "upper") as stack:
        stack.write_bytes(b"new-\xff", b"")
    ran = run(capsysbinary, "--all", "/", "--json")
    told = [schemas.Which.model_validate(one) for one in json.loads(ran.out)]
    assert [os.fsencode(one.path) for one in told] == [b"etc", b"link", b"new", b"new-\xff", b"srv"]
    assert ran.out.isascii()


def test_looking_leaves_everything_as_it_is(capsysbinary: Capture, changed: Path) -> None:
    before = sorted(changed.rglob("*"))
    run(capsysbinary, "etc/motd")
    assert sorted(changed.rglob("*")) == before


def test_what_is_wrong_is_said(capsysbinary: Capture, changed: Path) -> None:
    refused(run(capsysbinary, "nothing"), 1, "nothing: no layer has it", "which --all")
    refused(run(capsysbinary, "link/motd"), 1, "link/motd: /link is a symbolic link", "name what it leads to")
    refused(run(capsysbinary, "--all", "new"), 1, "new is not a directory", "leave --all out")
    refused(run(capsysbinary, "--all", "nothing"), 1, "nothing: no layer has it")
    refused(call(capsysbinary, "which", "etc"), 1, "etc is in no unionfs mount", "unionfs mounts")
    refused(call(capsysbinary, "which", "-u", "upper", "etc"), 2, "give the layers with -l too", "which --help")
    refused(run(capsysbinary, "etc", layers=("no",)), 1, "layer no does not exist")
