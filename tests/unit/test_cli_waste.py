"""`unionfs waste` on images and layers: text, JSON, limits, errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import human
from cli import waste_schemas as schemas
from tests.unit.cli_images import Cli
from tests.unit.cli_runner import refused
from tests.unit.image_rig import hex_of, layer, made_image, oci, old_docker
from tests.unit.overlay_rig import tree

BASE = layer(etc__conf="x" * 600, var__cache="c" * 400, twice="same content")
TOP = layer(etc__conf="y" * 100, **{"var__.wh.cache": ""}, again="same content")


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    made = Cli(capsysbinary, monkeypatch, tmp_path)
    image = made_image("app:1", BASE, TOP)
    Path("docker.tar").write_bytes(old_docker([image]))
    Path("oci.tar").write_bytes(oci([image]))
    made.image("load", "-i", "docker.tar")
    return made


def blob(cli: Cli, data: bytes) -> str:
    return f"{cli.store}/blobs/sha256/{hex_of(data)}"


def test_what_is_wasted_stands_beside_how_the_layers_came_to_be(cli: Cli) -> None:
    assert (
        cli.run("waste", "app:1", "--duplicates")
        == """\
1kB wasted (88.97%) of 1.12kB in 2 layers; efficiency 11.03%

LAYER    SIZE    WASTED  WHAT
layer 1  112B    0B      ADD 1
layer 2  1.01kB  1kB     ADD 0

WASTED  FILES  IN LAYER  WHY          PATH
600B    1      2         overwritten  /etc/conf
400B    1      2         removed      /var/cache

12B stored again: 1 content in more than one layer
  12B
    layer 1  /again
    layer 2  /twice"""
    )
    assert cli.run("waste", "app:1", "--top", "1").splitlines()[-2:] == [
        "600B    1      2         overwritten  /etc/conf",
        "… and 1 more (--top 0 lists all)",
    ]


def test_an_archive_a_layout_and_layers_say_the_same(cli: Cli, tmp_path: Path) -> None:
    cli.image("save", "--format", "oci-dir", "-o", "layout", "app:1")
    told = schemas.Waste.model_validate_json(cli.run("waste", "app:1", "--json", "--duplicates"))
    assert (told.stored, told.wasted) == (1124, 1000)
    assert [(one.path, one.wasted, one.files, one.layers, one.removed) for one in told.paths] == [
        ("/etc/conf", 600, 1, [2], False),
        ("/var/cache", 400, 1, [2], True),
    ]
    assert [one.layer.created_by for one in told.layers] == ["ADD 1", "ADD 0"]
    assert told.duplicates is not None and told.duplicates[0].size == 12
    # The conf with both sizes, and the cache with its own and a whiteout's of 0.
    assert told.dive.wasted_bytes == 700 + 400
    assert told.dive.efficiency == pytest.approx((100 + 24) / 1124)
    assert told.dive.user_wasted_percent == pytest.approx(1100 / 112)
    for target in ("oci:layout", "oci-archive:oci.tar", "docker-archive:docker.tar"):
        other = schemas.Waste.model_validate_json(cli.run("waste", target, "--json"))
        assert (other.paths, other.dive, other.stored) == (told.paths, told.dive, told.stored), target
        assert [one.layer.diff_id for one in other.layers] == [one.layer.diff_id for one in told.layers]
    of_layers = schemas.Waste.model_validate_json(cli.run("waste", "-l", "app:1", "--json"))
    assert of_layers.paths == told.paths and of_layers.duplicates is None


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        (("--fail-above", "50%"), "88.97% of the bytes are wasted, more than 50%"),
        (("--fail-above", "999"), "1kB (1000 bytes) are wasted, more than 999"),
        (("--lowest-efficiency", "0.95"), "efficiency 0.1103 is lower than 0.95"),
        (("--highest-wasted-bytes", "1kB"), "dive's wasted bytes 1100 are more than 1kB"),
        (("--highest-user-wasted-percent", "1"), "dive's wasted part of user bytes 9.8214 is more than 1.0"),
    ],
)
def test_more_than_a_limit_is_status_1_after_all_was_said(cli: Cli, limit: tuple[str, str], error: str) -> None:
    ran = cli.call("waste", "app:1", *limit)
    assert (ran.status, ran.errors[0]) == (1, f"error: {error}")
    assert ran.errors[1].startswith("hint: ") and b"overwritten" in ran.out


@pytest.mark.parametrize(
    "limit",
    [
        ("--fail-above", "89%"),
        ("--fail-above", "1000"),
        ("--fail-above", "1 kB"),
        ("--lowest-efficiency", "0.11"),
        ("--highest-wasted-bytes", "1100"),
        ("--highest-user-wasted-percent", "0.5", "--store", "x"),
    ],
)
def test_as_much_as_a_limit_is_no_failure(cli: Cli, limit: tuple[str, ...]) -> None:
    if "--store" in limit:  # of one layer alone nothing is wasted
        cli.import_("one:1")
        assert cli.call("waste", "one:1", *limit[:2]).status == 0
    else:
        assert cli.call("waste", "app:1", *limit).status == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--fail-above", "101%"), "a percentage is 0% to 100%"),
        (("--fail-above", "x%"), "a percentage is 0% to 100%"),
        (("--fail-above", "much"), "write a size as 20MB, 1.5GiB or 300"),
        (("--highest-wasted-bytes", "-1"), "write a size as"),
        (("--lowest-efficiency", "2"), "less than or equal to 1"),
        (("-l", "x"), "not both"),
    ],
)
def test_wrong_usage(cli: Cli, words: tuple[str, ...], error: str) -> None:
    refused(cli.call("waste", "app:1", *words), 2, error, "unionfs waste --help")


def test_what_is_no_stack(cli: Cli) -> None:
    refused(cli.call("waste"), 2, "give an IMAGE or a MOUNTPOINT, or the layers with -l")
    refused(cli.call("waste", "nothing:1"), 1, "layer nothing:1 does not exist", "no image in the store")
    tree(Path("directory"), a="a")
    refused(cli.call("waste", "directory"), 1, "directory is not a unionfs mount", "name layers with -l")


@pytest.mark.parametrize(
    ("text", "size"),
    [("300", 300), ("20MB", 20_000_000), ("1.5 GiB", 3 << 29), ("2k", 2000), ("1kib", 1024), ("0b", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert human.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "1XB", "-1", "1 0", "0x10", "1e3", "٣"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        human.parse_size(text)
