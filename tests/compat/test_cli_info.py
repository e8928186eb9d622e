"""`unionfs info`: what it says of this machine, as root and as an ordinary user, and that it changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.info_schemas import Information
from tests.compat.registry_rig import RegistryServer
from tests.requirements import requires
from tests.unit.cli_images import tar_of
from tests.unit.cli_runner import PROJECT, process_of, program, refused
from unionfs.linux.mount import mountinfo

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]


def told(*arguments: str | Path, env: dict[str, str]) -> Information:
    ran = program("info", "--json", *arguments, env=env)
    assert (ran.status, ran.err) == (0, b""), ran
    return Information.model_validate_json(ran.out)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A store, a cache and credentials of the test's own."""
    return {
        "UNIONFS_STORE": str(tmp_path / "store"), "UNIONFS_CACHE": str(tmp_path / "cache"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
    }  # fmt: skip


@requires("root", "overlayfs", "crun")
def test_everything_on_a_machine_that_has_it(env: dict[str, str], tmp_path: Path) -> None:
    before = len(mountinfo())
    found = told(env=env)
    assert (found.user, found.store.images, found.store.size) == (0, 0, 0)
    place = found.store.file_system
    assert place.abilities["whiteouts"] == "devices 0:0" and place.abilities["kernel-overlay"] == "usable"
    assert place.free > 0 and {name for name, there in place.abilities.items() if there is None} == set(place.lacks)
    assert found.transport.name == "devfuse" and found.transport.fuse is not None
    assert {"readdirplus", "posix_acl"} <= {*found.transport.features, *found.transport.missing}
    assert found.containers.runtime is not None and "version" in (found.containers.version or "")
    assert found.registries == []
    # Nothing stays of what was tried.
    assert len(mountinfo()) == before and sorted(os.listdir(tmp_path)) == []


def test_store_and_cache_are_measured(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(tar_of({"file": os.urandom(300_000)}))
    assert program("image", "import", tmp_path / "layer.tar", "it", env=env).status == 0
    store = told(env=env).store
    assert (store.images, store.directory) == (1, env["UNIONFS_STORE"])
    assert 300_000 <= store.size < 400_000 and store.cache_size > 0


def test_what_is_said_to_people(env: dict[str, str]) -> None:
    ran = program("info", env=env)
    assert (ran.status, ran.err) == (0, b"")
    tops = [line.partition(":")[0] for line in ran.lines[1:] if not line.startswith(" ")]
    assert tops == ["Store", "Transport", "Containers", "Registries", "Mounts"]
    assert f"Store: {env['UNIONFS_STORE']}" in ran.lines
    assert program("info", "-f", "{{.store.images}} {{.transport.name}}", env=env).lines == ["0 devfuse"]
    refused(program("info", "-f", "{{.nonsuch}}", env=env), 2, "there is no field nonsuch")


@requires("docker-registry")
def test_registries_are_reached_where_they_are_named(
    env: dict[str, str], registry: RegistryServer, tmp_path: Path
) -> None:
    kept = {"auths": {"example.invalid": {"auth": "dXNlcjpzZWNyZXQ="}}}
    Path(env["REGISTRY_AUTH_FILE"]).write_text(json.dumps(kept))
    there, nobody, known = told("--registry", registry.host, "--registry", "127.0.0.1:1", env=env).registries
    assert (there.name, there.reachable, there.problem) == (registry.host, True, None)
    assert (nobody.reachable, nobody.logged_in) == (False, None) and "cannot be reached" in (nobody.problem or "")
    # What is only known is not asked.
    assert (known.name, known.logged_in, known.reachable) == ("example.invalid", "user", None)
    refused(program("info", "--registry", "a b", env=env), 2, "is no registry")


def test_a_file_system_on_which_little_works(env: dict[str, str], tmp_path: Path) -> None:
    start = "import sys; from cli.main import main; sys.exit(main())"
    script = f'mount -t tmpfs -o ro none "$1"; exec "$2" -c "{start}" info --json'
    ran = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path), sys.executable],
        env={**os.environ, **env, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    place = Information.model_validate_json(ran.stdout).store.file_system
    assert (place.type, place.abilities, list(place.lacks)) == ("tmpfs", {}, ["write"])


@requires("root", "unshare")
@pytest.mark.usefixtures("device_for_all")
def test_an_ordinary_user_is_told_what_is_there_for_users(open_tmp: Path) -> None:
    env = {"HOME": str(open_tmp), "UNIONFS_RUNTIME_DIR": str(open_tmp / "run")}
    os.mkdir(open_tmp / "run", 0o700)
    for path in (open_tmp, open_tmp / "run"):
        os.chown(path, 65534, 65534)
    ran = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *process_of(), "info", "--json"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **env},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b""), ran
    found = Information.model_validate_json(ran.stdout)
    assert found.user == 65534 and not found.transport.passthrough and "passthrough" in found.transport.missing
    assert found.store.file_system.abilities["xattrs"] in ("user.overlay", None)
    assert found.transport.fuse is not None
