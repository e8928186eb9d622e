"""A changeset: the difference between the lowers and the union, as an OCI image layer (image-spec layer.md).

    diff.py        what changed, in O(changes)                  before, after, upper -> Change
    tar_writer.py  a reproducible layer tar of it               -> WrittenLayer (diff_id, digest)
    tar_reader.py  the one door for tars of unknown origin      bytes -> TarEntry
    apply.py       put a layer tar on a directory, safely       -> AppliedLayer

Nothing here knows how a union is made: two `vfs.Filesystem`s and the stored tree of the upper are all that it sees.
"""
