"""`unionfs completion`: the shells' own scripts, which ask complete.py."""

from __future__ import annotations

from enum import StrEnum
from importlib import resources
from typing import Annotated

import typer

from .output import text

FILES = {"bash": "unionfs.bash", "zsh": "_unionfs", "fish": "unionfs.fish"}


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Which one.", show_default=False)],
) -> None:
    """Print what makes a shell complete verbs, options, paths, mounts, layers and images.

    bash: eval "$(unionfs completion bash)" in ~/.bashrc. zsh: the same with zsh, in ~/.zshrc, after compinit.
    fish: unionfs completion fish > ~/.config/fish/completions/unionfs.fish
    """
    script = resources.files(__package__).joinpath("completions", FILES[shell.value]).read_text()
    for line in script.splitlines():
        text(line)
