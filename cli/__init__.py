"""The command line `unionfs`, one module per verb. Installed as `unionfs_cli`.

It turns arguments into calls of `unionfs.api` and results into text or JSON, and knows nothing else of unionfs. Data
goes to stdout, everything else to stderr; the exit status is 0, 1 (failed) or 2 (usage).
"""

import gc

# A command ends soon, and what it imports stays: looking through that again and again is a twentieth of its time.
gc.set_threshold(50_000, 20, 100)
