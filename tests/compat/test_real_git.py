"""git on a repository that lies in a lower layer: the same objects and trees as on a plain directory.

Loose objects with mode 0444 that are linked and renamed into place, lock files renamed over what they lock, packs read
by mmap, an index whose entries hold inode number, ctime and device of each file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.real_mount import run
from tests.requirements import requires
from tests.semantics.unions import Union, copy_tree, same_text

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, requires("git")]

FILES = 300

#: Nothing of the person's or the machine's own settings; who and when is always the same, and thus every digest.
ENVIRONMENT = (
    "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1",
    "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=1500000000 +0000",
    "GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.org", "GIT_COMMITTER_DATE=1500000000 +0000",
)  # fmt: skip


def git(repository: Path, *argv: str) -> str:
    return run(*ENVIRONMENT, "git", "-C", str(repository), *argv)


def repository(place: Path) -> Path:
    """Hundreds of files in a tree, a few commits, a branch and its merge; both loose objects and a pack."""
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    for i in range(FILES):
        path = place / f"part{i % 12}" / f"sub{i % 5}" / f"file{i}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"line {j} of {i}\n" for j in range(i % 90)))
    (place / "large").write_bytes(bytes(range(256)) * 2000)
    (place / "run").write_text("#!/bin/sh\n")
    (place / "run").chmod(0o755)
    (place / "link").symlink_to("part0/sub0")
    save(place, "first")
    git(place, "gc", "-q")
    git(place, "checkout", "-q", "-b", "side")
    for i in range(0, FILES, 12):
        (place / f"part{i % 12}" / f"sub{i % 5}" / f"file{i}").write_text(f"on the side {i}\n")
    save(place, "side")
    git(place, "checkout", "-q", "main")
    git(place, "mv", "part3", "moved")
    git(place, "rm", "-q", "-r", "part4")
    save(place, "main")
    return place


def save(place: Path, message: str) -> None:
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", message)


def work(place: Path) -> list[str]:
    """What a person does in a day, in the repository of `place` and in a clone beside it; what git said that counts."""
    origin, clone = place / "origin", place / "clone"
    said = [git(origin, "status", "--porcelain=v2")]
    git(origin, "merge", "-q", "-m", "merge", "side")
    git(place, "clone", "-q", "--no-local", "origin", "clone")  # through a pack; `--local` would link
    git(place, "clone", "-q", "--local", "origin", "linked")
    git(clone, "checkout", "-q", "-b", "topic", "HEAD~1")
    for i in range(0, FILES, 5):
        path = clone / f"part{i % 12}" / "new" / f"file{i}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"topic {i}\n" * 20)
    save(clone, "topic")
    git(clone, "stash", "push", "-q", "-u")
    git(clone, "checkout", "-q", "main")
    git(clone, "merge", "-q", "-m", "topic", "topic")
    git(clone, "push", "-q", "origin", "topic")
    git(clone, "tag", "-a", "-m", "one", "v1")
    git(clone, "rebase", "-q", "origin/side", "topic")
    for branch in ("main", "topic"):
        git(clone, "checkout", "-q", branch)
    git(origin, "checkout", "-q", "side")
    git(origin, "reset", "-q", "--hard", "topic")
    git(origin, "worktree", "add", "-q", "../tree", "main")
    for one in (origin, clone):
        git(one, "gc", "-q", "--aggressive", "--prune=now")
        git(one, "repack", "-q", "-a", "-d", "-f")
    return [*said, *state(place)]


def state(place: Path) -> list[str]:
    """Every ref, the tree and the status of each repository, each found whole."""
    found = []
    for name in ("origin", "clone", "linked", "tree"):
        one = place / name
        git(one, "fsck", "--strict", "--full", "--no-dangling")
        assert git(one, "status", "--porcelain") == ""
        found += [name, *git(one, "rev-parse", "HEAD", "HEAD^{tree}", "--branches", "--tags").split()]
        found += git(one, "for-each-ref").splitlines() + git(one, "ls-files", "-s").splitlines()
    return found


def shown(place: Path) -> list[str]:
    """The working trees, mode and content; what is in `.git` is named by time and number in part."""
    return [
        f"{path.relative_to(place)} {path.lstat().st_mode:o} "
        f"{path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else ''!r}"
        for path in sorted(place.rglob("*"))
        if ".git" not in path.parts
    ]


@pytest.mark.engine
def test_day_of_work_gives_the_same_repositories_as_on_a_plain_directory(union: Union, plain: Path) -> None:
    base = union.lower()
    repository(base / "origin")
    copy_tree(base, plain)
    git(plain / "origin", "update-index", "-q", "--refresh")
    kept = copy_tree(base, union.directory / "kept")
    mnt = union.mount()
    said = work(mnt)
    same_text(work(plain), said, "plain", "union")
    same_text(shown(plain), shown(mnt), "plain", "union")
    union.remount()
    for name in ("origin", "clone", "tree"):
        # Inode numbers and ctimes are as they were: git, which looks at them first, finds nothing to look at again.
        assert git(mnt / name, "diff-files") == ""
    same_text(said[1:], state(mnt), "before", "after the remount")
    same_text(shown(kept), shown(base), "the lower before", "the lower after")
    assert git(base / "origin", "fsck", "--strict") == ""
