"""Real shells on terminals of their own, typed at: what does the line look like after a tab?

with Shell("zsh", directory, environment) as shell:
    shell.typed("unionfs umo\t") == "unionfs umount "
    shell.shown       what the terminal showed meanwhile, without escapes
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

#: Seconds for a shell to answer.
PATIENCE = 60.0

#: How each is started without anybody's settings, and told to write its line into a file at Ctrl-G.
_START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
_SETUP = {
    "bash": """\
bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'
bind 'set page-completions off'; bind 'set completion-query-items 0'
show() { printf %s "$READLINE_LINE" >LINE; READLINE_LINE=; READLINE_POINT=0; echo "<DO""NE>"; }
bind -x '"\\C-g": show'
eval "$(unionfs completion bash)"
PS1='ready> '
""",
    "zsh": """\
unsetopt zle_bracketed_paste prompt_sp; LISTMAX=10000; autoload -Uz compinit; compinit -D -u
show() { print -rn -- "$BUFFER" >LINE; BUFFER=; zle -I; print "<DO""NE>" }
zle -N show; bindkey '^G' show
eval "$(unionfs completion zsh)"
PROMPT='ready> '
""",
    "fish": """\
function fish_greeting; end; function fish_prompt; echo 'ready> '; end
function show; commandline | string collect >LINE; commandline ''; echo "<DO""NE>"; end
bind \\cg show
unionfs completion fish | source
""",
}


class Shell:
    def __init__(self, name: str, directory: Path, environment: Mapping[str, str]) -> None:
        self._line = directory / "LINE"
        self._terminal, theirs = pty.openpty()
        self.shown = ""
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *_START[name]],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            env={**environment, "TERM": "vt100", "HOME": str(directory), "COLUMNS": "200", "LINES": "50"},
        )
        os.close(theirs)
        for line in _SETUP[name].splitlines():
            self._send(line + "\n")
        self._wait(r"ready> ")
        self._send("echo BEG''AN\n")
        self._wait(r"BEGAN\s.*ready> ")

    def typed(self, keys: str) -> str:
        """The line after these keys, which is then given up."""
        self.shown = ""
        self._send(keys + "\x07")
        self._wait("<DONE>")
        return self._line.read_text().removesuffix("\n")

    def _send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _wait(self, pattern: str) -> None:
        while not re.search(pattern, self.shown, re.DOTALL):
            if not select.select([self._terminal], [], [], PATIENCE)[0]:
                raise TimeoutError(f"no {pattern} in: {self.shown}")
            read = os.read(self._terminal, 1 << 16).decode(errors="replace")
            self.shown += re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Za-z0-9]|[=>])", "", read)

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._terminal)  # SIGHUP to whoever has it as terminal
        self._process.wait(PATIENCE)
