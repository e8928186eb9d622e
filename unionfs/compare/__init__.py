"""Two trees of whatever kind compared, path by path.

    view.py        what a comparison asks of a tree      a layer, or a file system  -> View
    stored.py      layers and uppers as changesets       whiteouts of any encoding  -> View
    mtree.py       mtree(5), the format of snapshots     lines <-> Entry
    snapshot.py    a tree written down, and read back    View -> mtree -> View
    globs.py       which paths are meant                 patterns -> Scope
    walk.py        both trees at once, in order          View, View -> Difference
    changes.py     a Survey's changes, with reasons      Change -> Difference
    summary.py     how much, by directory                Difference -> Tally
    unified.py     what lines of a text differ           bytes, bytes -> lines

What two objects differ in is said once, in `unionfs.changeset.difference`. Nothing here knows what names on a command
line mean, or how a union is made.
"""
