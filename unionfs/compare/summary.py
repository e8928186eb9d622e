"""How much differs: `Tally`, of all or of each directory.

A directory's tally has what is in it and in the directories below. Bytes are those of regular files; a file whose
content differs has all its bytes gone and come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from unionfs.changeset.change import Kind
from unionfs.changeset.difference import Reason
from unionfs.compare.walk import Difference, State
from unionfs.vfs import DT_REG


@dataclass(slots=True)
class Tally:
    """Counts of objects, and bytes. `reasons`: how many changed objects have each."""

    added: int = 0
    changed: int = 0
    deleted: int = 0
    bytes_added: int = 0
    bytes_deleted: int = 0
    reasons: dict[Reason, int] = field(default_factory=dict)

    @property
    def growth(self) -> int:
        """By how much the second tree is larger."""
        return self.bytes_added - self.bytes_deleted

    def add(self, difference: Difference) -> None:
        kind = difference.kind
        if kind is Kind.CHANGED and not difference.reasons:
            return  # a directory that is told of for what is in it
        self.added += kind is Kind.ADDED
        self.changed += kind is Kind.CHANGED
        self.deleted += kind is Kind.DELETED
        for reason in difference.reasons:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if kind is not Kind.CHANGED or Reason.CONTENT in difference.reasons or Reason.TYPE in difference.reasons:
            self.bytes_added += _size(difference.after)
            self.bytes_deleted += _size(difference.before)


def _size(state: State | None) -> int:
    return max(0, state.attr.size) if state is not None and state.type == DT_REG else 0


def tally(found: Iterable[Difference], depth: int) -> dict[bytes, Tally]:
    """By directory, in order of paths, down to `depth` names; b"" has all, and is always there."""
    whole = Tally()
    tallies: dict[bytes, Tally] = {}
    for difference in found:
        whole.add(difference)
        parts = difference.path.split(b"/")
        for end in range(1, min(depth, len(parts) - 1) + 1):
            tallies.setdefault(b"/".join(parts[:end]), Tally()).add(difference)
    return {b"": whole} | {path: tallies[path] for path in sorted(tallies, key=lambda path: path.split(b"/"))}
