"""Options of `run` and `exec` as people write them, made into what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unionfs import api
from unionfs.containers.settings import Volume


def test_what_is_given_as_nothing_is_not_given() -> None:
    """docker's: so that a script can write -u "$USER_OR_NOTHING"; the image's user is not root then."""
    nothing = api.container_settings(("true",), working_directory="", user="", hostname="")
    assert nothing == api.container_settings(("true",))
    assert api.execution(("true",), working_directory="", user="") == api.execution(("true",))
    with pytest.raises(api.OptionError, match="needs to be an absolute path"):
        api.container_settings(working_directory="relative")


def test_a_working_directory_that_is_gone_matters_to_relative_paths_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert api.container_settings(volumes=("/a:/b",)).volumes == (Volume("/a", "/b"),)
    with pytest.raises(api.OptionError, match="there is no working directory"):
        api.container_settings(volumes=("./a:/b",))


@pytest.mark.parametrize(
    "given",
    [
        {"command": ("echo", "\udcff")},
        {"entrypoint": "\udcff"},
        {"environment": ("A=\udcff",)},
        {"volumes": ("/a:/\udcff",)},
        {"working_directory": "/\udcff"},
        {"user": "\udcff"},
    ],
)
def test_what_is_not_utf8_cannot_be_told_a_runtime(given: dict[str, Any]) -> None:
    """Its config.json is UTF-8: crun refuses it, runc replaces what is none."""
    with pytest.raises(api.OptionError, match="not UTF-8"):
        api.container_settings(**given)


def test_a_process_in_a_container_is_told_in_utf8_too() -> None:
    with pytest.raises(api.OptionError, match="not UTF-8"):
        api.execution(("echo", "\udcff"))


@pytest.mark.parametrize("hostname", ["x" * 65, "a\nb", "a b", "\udcff"])
def test_no_hostname(hostname: str) -> None:
    with pytest.raises(api.OptionError, match="invalid hostname"):
        api.container_settings(hostname=hostname)
