"""The tutorials, done: each command of docs/tutorials, with what it is said to print."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.compat.conversation import PROJECT, blocks, own_environment, run
from tests.requirements import need

TUTORIALS = sorted(path.name for path in (PROJECT / "docs/tutorials").glob("*.md"))

#: What each needs besides a mount.
NEEDED = {
    "3-images.md": ("skopeo", "umoci"),
    "4-layers-in-place.md": ("skopeo", "zstd"),
    "5-the-kernels-overlayfs.md": ("root", "overlayfs"),
    "6-a-registry.md": ("docker-registry", "skopeo"),
    "7-a-container.md": ("root", "crun", "busybox"),
}


def free_port() -> str:
    with socket.create_server(("localhost", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.needs_fuse
@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_says_what_happens(tmp_path: Path, name: str) -> None:
    need("fuse", "tar", *NEEDED.get(name, ()))
    document = (PROJECT / "docs/tutorials" / name).read_text()
    with own_environment(tmp_path) as environment:
        try:
            run("".join(blocks(document, "console")), tmp_path, environment, [(":5000", f":{free_port()}")])
        finally:
            subprocess.run(["unionfs", "rm", "-f", "web"], env=environment, capture_output=True, check=False)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((tmp_path / "registry.pid").read_text()), signal.SIGTERM)


def test_each_leads_to_the_next_and_the_readme_to_all() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert [name for name in TUTORIALS if f"(docs/tutorials/{name})" not in readme] == []
    for name, following in itertools.pairwise(TUTORIALS):
        linked = re.findall(r"\]\((\S+?\.md)\)", (PROJECT / "docs/tutorials" / name).read_text())
        assert linked[-1] == following
