"""Upkeep of layers and uppers that are not mounted: finding what is wrong with one, and changing its encoding.

    stored.py      what is read: objects, directories, a walk over a tree
    steps.py       what is done: changes of one system call each, so that a crash leaves before or after
    attributes.py  the union's own attributes: which values, on which kinds of objects
    rules.py       what can be wrong in one directory
    below.py       what can be wrong with regard to the layers below
    index.py       what can be wrong in the work directory
    check.py       the rules over a tree, and the repairs
    encoding.py    one directory's whiteouts and marks in another encoding
    convert.py     a tree in another encoding
    data.py        metacopies get their data

attributes, rules and encoding do no I/O: what is stored in, steps out. Whether a mount uses the tree is for the caller
to know.
"""

from unionfs.upkeep.check import Checked, Finding, check
from unionfs.upkeep.convert import Converted, convert

__all__ = ["Checked", "Converted", "Finding", "check", "convert"]
