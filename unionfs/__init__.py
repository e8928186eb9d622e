"""unionfs: stack read-only layers under a writable upper, mount the result, commit the upper as an OCI layer.

The Python interface is `unionfs.api`. This package itself imports nothing, so that a mount starts fast.
"""

__version__ = "0.1.0"
