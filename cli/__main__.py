"""`python -m unionfs_cli`."""

from .main import program

program()
