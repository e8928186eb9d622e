"""What `which` says of a file, as extended attributes of the file: one for each question.

    user.unionfs.layer     the layer that it is from: the topmost of those that a directory is merged of
    user.unionfs.path      where it is in that layer, after a slash: in a directory, layer and path joined name it
    user.unionfs.layers    all layers that it is made of, topmost first, a NUL between two: several of a merged
                           directory; of a metacopy that which has the data besides
    user.unionfs.rule      why it is seen: `wins`; `merged`, a directory with others below; `linked`, another name of it
                           was copied up; `metacopy`, its data is further down; then, each after a comma, `opaque` and
                           `redirect` of a directory that hides what is below, or goes on there under another name

A layer is named as it was given: a directory, or a tar. What lies in the work directory (a copy that all names of a
hard link share) is of that one.
"""

from __future__ import annotations

from collections.abc import Sequence

from unionfs.explain.which import Place, Which


def attribute(found: Which, layers: Sequence[bytes | None], work: bytes | None, name: bytes) -> bytes | None:
    """The value of `user.unionfs.NAME`; None where there is none of that name, or no such file. `layers`: the upper's
    path and those of the layers; `work`: that of the work directory."""
    shown = [part for part in found.parts if part.role in ("wins", "merged", "data")]
    if found.kind is None or not shown:
        return None

    def layer(place: Place) -> bytes:
        return (work if place.in_work else layers[place.layer]) or b""

    top = shown[0].place
    if name == b"layer":
        return layer(top)
    if name == b"path":
        return b"/" + top.path
    if name == b"layers":
        return b"\0".join(layer(part.place) for part in shown)
    return _rule(found).encode("ascii") if name == b"rule" else None


def _rule(found: Which) -> str:
    shown = [part for part in found.parts if part.role in ("wins", "merged", "data")]
    roles = {part.role for part in found.parts}
    rule = "wins"
    if "data" in roles:
        rule = "metacopy"
    elif "linked" in roles:
        rule = "linked"
    elif "merged" in roles:
        rule = "merged"
    words = [rule]
    if any(part.opaque for part in shown):
        words.append("opaque")
    if any(part.redirect is not None for part in shown if part.kind == "dir"):
        words.append("redirect")
    return ",".join(words)
