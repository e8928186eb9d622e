"""A commit to an image that ends before every system call that changes a name: the store is the old or the new one."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.image_rig import layer, made_image, old_docker, open_store
from tests.unit.test_changeset_kill import dies
from tests.unit.test_image_crash import check_after_the_next_command, state
from unionfs.api import Stack, commit_image

BASE = made_image("base:1", layer(base="base"))


def test_a_commit_that_died_has_made_an_image_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    monkeypatch.setenv("UNIONFS_STORE", os.fsdecode(store.directory))
    monkeypatch.setenv("UNIONFS_CACHE", os.fsdecode(store.cache.root))
    store.load(io.BytesIO(old_docker([BASE])))
    with Stack(["base:1"], tmp_path / "upper") as stack:
        stack.write_text("new", "new")
    before = state(store)
    (tmp_path / "good").mkdir()
    subprocess.run(["cp", "-a", "store", "store.cache", "good"], cwd=tmp_path, check=True)

    def commit() -> None:
        commit_image(store, "app:1", layers=["base:1"], upper=tmp_path / "upper", changes=["USER app"], epoch=0)

    states: list[object] = []
    died = True
    while died:
        subprocess.run("rm -r store store.cache; cp -a good/. .", cwd=tmp_path, check=True, shell=True)
        died = dies(len(states), commit)
        assert store.verify() == []
        states.append(state(store))
        check_after_the_next_command(store)
    new = states[-1]
    assert new != before and len(states) > 5
    assert states == [before] * states.count(before) + [new] * states.count(new)
