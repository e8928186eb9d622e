"""Options of `run` and `exec` as people write them, made into what is asked for."""

from __future__ import annotations

from pathlib import Path

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
