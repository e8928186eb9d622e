"""Documents with conversations: blocks of commands, each with the output that is shown below it, run and compared.

```console
$ command            a line, or a here-document whose lines begin with the shell's second prompt, `> `
output               in which `…` stands for anything within a line
```
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


def conversation(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown below it. A here-document's lines begin with
    the shell's second prompt."""
    turns = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    found = []
    for turn in turns:
        document = re.match(r"[^\n]*<<[^\n]*\n(?:> [^\n]*\n)+", turn)
        command, output = (document[0], turn[document.end() :]) if document else turn.split("\n", 1)
        found.append((re.sub(r"^> ", "", command, flags=re.MULTILINE), output))
    return found


@contextmanager
def own_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Both commands on PATH, whether installed or not; what stays mounted is unmounted."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, module in {"unionfs": "cli.main", "unionfs-mount": "unionfs.api.mount_helper"}.items():
        script = bin_dir / name
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "LC_ALL": "C.UTF-8",
        "UNIONFS_STORE": str(tmp_path / "store"),
        "UNIONFS_CACHE": str(tmp_path / "cache"),
    }
    yield env
    subprocess.run(["unionfs", "umount", "--lazy", tmp_path / "tree"], env=env, capture_output=True, check=False)


def run(block: str, directory: Path, environment: Mapping[str, str], replaced: Iterable[tuple[str, str]] = ()) -> None:
    """Have a conversation, with other words in place of some. AssertionError where something else is said."""
    for old, new in replaced:
        block = block.replace(old, new)
    for command, expected in conversation(block):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=directory,
            env=environment,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        assert (done.returncode, bool(re.fullmatch(pattern, done.stdout))) == (0, True), f"$ {command}\n{done.stdout}"
