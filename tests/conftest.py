"""Fixtures and hooks shared by all suites.

Fixtures for tests that run on every rig (tests/rigs.py); asking for one of them multiplies the test by the rigs:

    rig        the Rig
    mnt        Path of a fresh directory inside a mount that the module's tests share. The default
    own_mnt    Path of a mount that this test has for itself
    mounted    the Mounted behind `mnt` or `own_mnt`

Marks: `populate(base=fn, above=fn)` says what exists in `mnt` beforehand (in lower layers, on unions);
`needs("tmpfile", …)` names the capabilities without which the test is not generated; `needs_root` and `needs_fuse`
skip with their reason.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import requirements
from tests.rigs import DEVIATIONS, RIGS, Backing, Mounted, Population, Rig, SharedMount, Watchdog, mount

# A shell starts background jobs with SIGINT ignored, nohup its own with SIGHUP, and what is ignored stays so in our
# children, some of which are to be interrupted.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

#: Seconds after which a test's mount is broken under it.
TEST_TIMEOUT = 30.0
SLOW_TEST_TIMEOUT = 300.0

MARKERS = (
    "needs_root: needs root's privileges",
    "needs_fuse: needs /dev/fuse, and fusermount3 when not root",
    "slow: takes more than a few seconds",
    "peer: runs beside another program (kernel overlayfs, fuse-overlayfs, umoci …)",
    "engine: the same over every transport; over fusepy it is slow",
    "needs(*capabilities): not generated for rigs that lack one of them (tests/rigs.py: CAPABILITIES)",
    "populate(base=None, above=None): functions of a Path that make what exists before the mount",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("unionfs")
    group.addoption("--rig", action="append", choices=list(RIGS), help="run only on this rig (may be repeated)")
    group.addoption(
        "--backing", choices=["tmpfs", "ext4"], default="tmpfs", help="what the mounts' directories lie on (as root)"
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    # Tests compare modes; whatever umask the person has must not show.
    os.umask(0o022)
    # `timeout` and CI end a run with SIGTERM: fixtures are then to unmount, as they do for ^C.
    signal.signal(signal.SIGTERM, _end_run)


def _end_run(_signal: int, _frame: object) -> None:
    pytest.exit("SIGTERM", returncode=128 + signal.SIGTERM)


# Generating tests --------------------------------------------------------------------------------------------------
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rig" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--rig") or list(RIGS)
    needed = [name for mark in metafunc.definition.iter_markers("needs") for name in mark.args]
    rigs = [
        rig
        for rig in RIGS.values()
        if rig.name in chosen
        and (not rig.modules or metafunc.module.__name__.rpartition(".")[2] in rig.modules)
        and all(rig.has(capability) for capability in needed)
        and (rig.name, metafunc.function.__name__) not in DEVIATIONS
    ]
    params = [
        pytest.param(rig, id=rig.name, marks=pytest.mark.skip(reason=rig.missing) if rig.missing else ())
        for rig in rigs
    ]
    metafunc.parametrize("rig", params, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("needs_root") is not None:
            item.add_marker(requirements.requires("root"))
        if item.get_closest_marker("needs_fuse") is not None:
            item.add_marker(requirements.requires("fuse"))
        if item.get_closest_marker("engine") is not None and _rig_name(item) == "union-fusepy":
            item.add_marker(pytest.mark.slow)
    # A test with no rig left (--rig control, and the test needs a union) is not a skip: it does not exist.
    gone = [item for item in items if _has_no_rig(item)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def _rig_name(item: pytest.Item) -> str | None:
    rig = item.callspec.params.get("rig") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    return rig.name if isinstance(rig, Rig) else None


def _has_no_rig(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or "rig" not in item.fixturenames:
        return False
    return not hasattr(item, "callspec") or not isinstance(item.callspec.params.get("rig"), Rig)


# Rigs --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def backing(pytestconfig: pytest.Config) -> Iterator[Backing]:
    made = Backing(pytestconfig.getoption("--backing"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog()
    yield made
    made.close()


@pytest.fixture(scope="module")
def rig(request: pytest.FixtureRequest) -> Rig:
    chosen = request.param
    assert isinstance(chosen, Rig)
    return chosen


def _population(item: pytest.Item) -> Population:
    mark = item.get_closest_marker("populate")
    return Population() if mark is None else Population(*mark.args, **mark.kwargs)


def _is_skipped(item: pytest.Item) -> bool:
    """Whether a mark skips the test: then nothing need exist for it, or can (devices, without root)."""
    return item.get_closest_marker("skip") is not None or any(
        mark.args and mark.args[0] is True for mark in item.iter_markers("skipif")
    )


def _subdirectory(item: pytest.Item) -> str:
    """The directory of a test inside a shared mount: its name, readable, and the same for every run."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", item.name)[:120].rstrip("_")


@pytest.fixture(scope="module")
def shared_mount(request: pytest.FixtureRequest, rig: Rig, backing: Backing) -> Iterator[SharedMount]:
    """One mount for the module, with the directories of all its tests populated before it is made."""
    module = request.module
    populate = {
        _subdirectory(item): _population(item)
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is module
        and "mnt" in item.fixturenames
        and item.callspec.params.get("rig") is rig
        and not _is_skipped(item)
    }
    shared = SharedMount(rig, backing, populate)
    yield shared
    shared.close()


@pytest.fixture
def _guarded(request: pytest.FixtureRequest, rig: Rig, watchdog: Watchdog, backing: Backing) -> Iterator[Mounted]:
    """The mount of this test, watched: broken when it takes too long, the test failed when the server complains."""
    slow = request.node.get_closest_marker("slow") is not None
    seconds = SLOW_TEST_TIMEOUT if slow else TEST_TIMEOUT
    if "own_mnt" in request.fixturenames:
        with mount(rig, backing, {"": _population(request.node)}) as mounted, watchdog.guard(mounted, seconds):
            yield mounted
        return
    mounted = request.getfixturevalue("shared_mount").get()
    with watchdog.guard(mounted, seconds):
        yield mounted
    problem = mounted.problems()
    if problem is not None:
        pytest.fail(problem)


@pytest.fixture
def mounted(_guarded: Mounted) -> Mounted:
    return _guarded


@pytest.fixture
def mnt(request: pytest.FixtureRequest, _guarded: Mounted) -> Path:
    return _guarded.path / _subdirectory(request.node)


@pytest.fixture
def own_mnt(_guarded: Mounted) -> Path:
    return _guarded.path


# In CI, what can be installed is not skipped -------------------------------------------------------------------------
class SkipCheck:
    """With CI in the environment: a skip for anything but `requirements.UNINSTALLABLE` fails the run."""

    def __init__(self) -> None:
        self.unexpected: dict[str, list[str]] = {}

    def _note(self, where: str, longrepr: object) -> None:
        reason = str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
        reason = reason.removeprefix("Skipped: ")
        if reason not in requirements.UNINSTALLABLE:
            self.unexpected.setdefault(reason, []).append(where)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexpected and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.unexpected:
            return
        terminalreporter.section("skipped in CI, although it can be installed", red=True, bold=True)
        for reason, where in sorted(self.unexpected.items()):
            terminalreporter.line(f"{reason}: {len(where)} tests, e.g. {where[0]}")


def pytest_sessionstart(session: pytest.Session) -> None:
    in_worker = hasattr(session.config, "workerinput")  # xdist: the controller sees all reports
    if os.environ.get("CI", "").lower() in ("1", "true", "yes") and not in_worker:
        session.config.pluginmanager.register(SkipCheck(), "unionfs-skip-check")


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)
