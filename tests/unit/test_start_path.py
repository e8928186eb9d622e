"""What `unionfs-mount` imports: from its exec to a usable mount there are 150 ms, most of which go into importing.

Counted in modules, since a time would measure the machine. Python runs without its site packages, so an import of
somebody else's module would fail, and what a developer's environment loads by itself is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

#: A few more than there are. Whoever needs to raise it measures what that costs a mount.
MOST = 165

#: Costly, or of no use to a mount.
UNWANTED = {"asyncio", "email", "fuse", "http", "pathlib", "pydantic", "rich", "ssl", "tarfile", "tempfile", "typer"}

_PROGRAM = """
import json, sys
before = set(sys.modules)
import unionfs.api.mount_helper
import unionfs.transport.devfuse
print(json.dumps(sorted(set(sys.modules) - before)))
"""


_LISTING = """
import json, sys
before = set(sys.modules)
from cli.main import main
main(["image", "ls"])
print(json.dumps(sorted(set(sys.modules) - before)))
"""

#: What costs time and is of no use to a list.
UNWANTED_OF_A_LIST = {
    "asyncio", "fuse", "rich", "tarfile", "unionfs.api.mounting", "unionfs.changeset.diff",
    "unionfs.changeset.tar_writer", "unionfs.image.load", "unionfs.image.save", "unionfs.mounts", "unionfs.overlay",
    "unionfs.transport",
}  # fmt: skip


def imported() -> set[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
    run = subprocess.run([sys.executable, "-S", "-c", _PROGRAM], env=environment, capture_output=True, check=True)
    return set(json.loads(run.stdout))


def test_a_mount_imports_few_modules() -> None:
    found = imported()
    assert "unionfs.overlay.filesystem" in found
    assert len(found) <= MOST, sorted(found)


def test_a_mount_imports_nothing_that_it_has_no_use_for() -> None:
    found = imported()
    assert {name.partition(".")[0] for name in found} & UNWANTED == set()
    assert not {name for name in found if name.startswith(("unionfs.changeset", "unionfs.testing", "unionfs_cli"))}


def test_a_list_of_images_imports_nothing_that_it_has_no_use_for(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "UNIONFS_STORE": str(tmp_path / "store")}
    run = subprocess.run([sys.executable, "-c", _LISTING], env=environment, capture_output=True, check=True)
    found = set(json.loads(run.stdout.splitlines()[-1]))
    assert "unionfs.image.listing" in found
    assert found & UNWANTED_OF_A_LIST == set()


_VERB = """
import json, sys
from cli.main import main
main(["umount", "/nonsuch"])
print(json.dumps(sorted(sys.modules)))
"""


def test_a_verb_imports_what_it_needs_and_not_what_others_do() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _VERB], env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, check=True
    )
    assert run.stderr.startswith(b"error: /nonsuch")
    found = set(json.loads(run.stdout))
    assert {name for name in found if name.startswith("cli.")} == {
        "cli.main", "cli.options", "cli.output", "cli.program", "cli.umount", "cli.verbs",
    }  # fmt: skip
    assert found & {"httpx2", "pydantic", "rich", "tarfile", "unionfs.changeset", "unionfs.image"} == set()


_VERBS = """
import json, sys
from cli.main import main
for argv in json.loads(sys.argv[1]):
    main(argv)
print(json.dumps(sorted(sys.modules)))
"""


def test_options_that_nobody_gave_are_not_looked_at(tmp_path: Path) -> None:
    """typer would import pydantic for that."""
    argvs = [
        ["mount", "-l", "/nonsuch", "/nonsuch"], ["ps"], ["stop", "nonsuch"], ["commit", "nonsuch"], ["convert", "/"],
        ["diff", "-l", "/nonsuch", "-u", "/nonsuch"], ["trace", "/nonsuch"],
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", _VERBS, json.dumps(argvs)],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "UNIONFS_STORE": str(tmp_path / "store")},
        capture_output=True, check=True,
    )  # fmt: skip
    assert run.stderr.count(b"error: ") == len(argvs) - 1  # ps succeeds
    assert "pydantic" not in json.loads(run.stdout.splitlines()[-1])


_RUN = """
import json, sys
from cli.main import main
import unionfs.api.containers, unionfs.api.tar_layers, unionfs.transport.devfuse
main(["run", "-it", "--rm", "-eA=1", "--pull", "never", "--network", "nowhere", "missing", "true"])
print(json.dumps(sorted(sys.modules)))
"""


def test_a_container_waits_for_nothing_that_it_has_no_use_for() -> None:
    """A known image's: to look one up takes pydantic."""
    run = subprocess.run(
        [sys.executable, "-c", _RUN],
        env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    assert run.stderr.startswith(b"error: ")
    found = set(json.loads(run.stdout))
    unwanted = {"httpx2", "pydantic", "rich", "tarfile", "platformdirs", "email", "asyncio", "textual"}
    assert found & unwanted == set()
    assert found & {"unionfs.changeset.tar_reader", "unionfs.changeset.diff", "unionfs.image.catalog"} == set()
