"""The test machinery itself: skips in CI, capabilities, mounts that break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import GROUPS, REQUIREMENTS, UNINSTALLABLE, missing
from tests.rigs import (
    CAPABILITIES,
    DEVIATIONS,
    PROJECT,
    RIGS,
    Backing,
    Population,
    Watchdog,
    mount,
    mount_line,
    python_path,
)

INSTALLABLE = "missing: the command skopeo (apt-get install skopeo)"
NOT_INSTALLABLE = "missing: /dev/fuse, readable and writable"


def run_pytest(directory: Path, body: str, *arguments: str, ci: bool) -> subprocess.CompletedProcess[str]:
    """A pytest of its own on a module with this text, with our conftest and no configuration file."""
    module = directory / "test_inner.py"
    module.write_text(f"import os\nimport pytest\n{body}")
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "PYTEST_XDIST_WORKER")}
    environment |= {"PYTHONPATH": python_path()} | ({"CI": "true"} if ci else {})
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", str(directory)]
    argv += ["-p", "no:cacheprovider", *arguments, str(module)]
    return subprocess.run(argv, env=environment, cwd=directory, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("reason", "ci", "status"),
    [(INSTALLABLE, True, 1), (INSTALLABLE, False, 0), (NOT_INSTALLABLE, True, 0), ("I had no time", True, 1)],
)
def test_skip_of_what_can_be_installed_fails_the_run_in_ci(tmp_path: Path, reason: str, ci: bool, status: int) -> None:
    done = run_pytest(tmp_path, f"def test_it() -> None:\n    pytest.skip({reason!r})\n", ci=ci)
    assert done.returncode == status, done.stdout
    assert (f"{reason}: 1 tests, e.g. test_inner.py::test_it" in done.stdout) == (status == 1)


def test_module_that_skips_itself_is_noticed_too(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, f"pytest.skip({INSTALLABLE!r}, allow_module_level=True)\n", ci=True)
    assert done.returncode == 1, done.stdout
    assert INSTALLABLE in done.stdout


def test_reasons_in_the_table_are_those_the_hook_allows() -> None:
    assert NOT_INSTALLABLE in UNINSTALLABLE
    assert REQUIREMENTS["skopeo"].reason == INSTALLABLE
    assert len(UNINSTALLABLE) < 6
    assert all(name in REQUIREMENTS for group in GROUPS.values() for name in group)
    with pytest.raises(KeyError):
        missing("no such thing")


def test_rig_without_a_needed_capability_gets_no_test(tmp_path: Path) -> None:
    body = """
@pytest.mark.needs("union")
def test_union(mnt): pass
def test_any(mnt):
    assert os.listdir(mnt) == []
"""
    done = run_pytest(tmp_path, body, "-q", "--rig", "control", ci=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 deselected" in done.stdout


def test_what_was_populated_is_there(tmp_path: Path) -> None:
    body = """
def below(d): (d / "file").write_bytes(b"below")
def above(d): (d / "file").write_bytes(b"above")
@pytest.mark.populate(base=below, above=above)
def test_own(own_mnt):
    assert (own_mnt / "file").read_bytes() == b"above"
@pytest.mark.populate(base=below, above=above)
def test_shared_above(mnt):
    assert (mnt / "file").read_bytes() == b"above"
@pytest.mark.populate(base=below)
def test_shared(mnt):
    assert (mnt / "file").read_bytes() == b"below"
"""
    done = run_pytest(tmp_path, body, "-q", "--rig", "control", ci=True)
    assert done.returncode == 0, done.stdout


def test_tables_name_what_exists() -> None:
    for rig in RIGS.values():
        assert rig.lacks <= set(CAPABILITIES)
    lacking = frozenset().union(*(rig.lacks for rig in RIGS.values()))
    assert set(CAPABILITIES) == lacking, "a capability that every rig has"
    suites = (PROJECT / "tests" / suite for suite in ("posix", "semantics"))
    tests = "".join(path.read_text() for suite in suites for path in suite.glob("test_*.py"))
    for rig_name, test in DEVIATIONS:
        assert rig_name in RIGS
        assert f"def {test}(" in tests


def served_rig() -> str:
    """The first rig with a server that this machine can run."""
    found = [rig.name for rig in RIGS.values() if rig.fs == "loopback" and rig.missing is None]
    return found[-1] if found else pytest.skip(RIGS["loopback-devfuse"].missing or "")


def test_hanging_server_is_broken_by_the_watchdog(backing: Backing, watchdog: Watchdog) -> None:
    rig = RIGS[served_rig()]
    with pytest.raises(AssertionError, match="the server ended with -9"), mount(rig, backing) as mounted:
        assert mounted.server is not None
        os.kill(mounted.server.process.pid, signal.SIGSTOP)
        with watchdog.guard(mounted, 0.5), pytest.raises(OSError):
            os.stat(mounted.path / "anything")
        mounted.server.process.wait(5)
    assert mount_line(mounted.path) is None


def test_server_that_logs_an_exception_fails_its_test(backing: Backing) -> None:
    rig = RIGS[served_rig()]
    with pytest.raises(AssertionError, match="the server logged"), mount(rig, backing) as mounted:
        assert mounted.server is not None
        assert mounted.problems() is None
        with open(mounted.server.log, "a") as log:
            log.write("Traceback (most recent call last):\n")
    assert mount_line(mounted.path) is None


def test_mount_is_taken_down_when_the_test_fails(backing: Backing) -> None:
    rig = RIGS[served_rig()]
    populate = {"d": Population(base=lambda d: (d / "f").write_bytes(b"x"))}
    with pytest.raises(ZeroDivisionError), mount(rig, backing, populate) as mounted:
        held = os.open(mounted.path / "d" / "f", os.O_RDONLY)
        os.close(held)
        raise ZeroDivisionError
    assert mount_line(mounted.path) is None
    assert mounted.server is not None
    assert mounted.server.process.returncode == 0
