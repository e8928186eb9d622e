"""Placeholder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unionfs.explain.trace import Event
from unionfs.overlay import UnionFilesystem
from unionfs.vfs import Asked


class Scene:
    def __init__(self, fs: UnionFilesystem, tell: Callable[[dict[str, Any]], None]) -> None: ...
    def before(self, asked: Asked) -> None: ...
    def after(self, event: Event) -> None: ...
    def finish(self) -> None: ...
