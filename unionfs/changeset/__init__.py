"""A changeset: the difference between the lowers and the union, as an OCI image layer (image-spec layer.md).

    diff.py        what changed, in O(changes)                  before, after, upper -> Change
    difference.py  in what two objects differ                   attributes, readers -> Reason
    content.py     data compared and digested, holes not read   LayerFile, Filesystem -> Content
    tar_writer.py  a reproducible layer tar of it               -> WrittenLayer (diff_id, digest)
    tar_reader.py  the one door for tars of unknown origin      bytes -> TarEntry
    member.py      what a member of a layer tar stands for      -> Member
    apply.py       put a layer tar on a directory, safely       -> AppliedLayer
    tar_indexer.py the index of one, to be read in place        -> layers.tar_index
    replacing.py   files that appear whole

Nothing here knows how a union is made: two `vfs.Filesystem`s and the stored tree of the upper are all that it sees.
"""
