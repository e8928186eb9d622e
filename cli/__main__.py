"""`python -m unionfs_cli`."""

from .program import program

program()
