"""Hypothesis profiles of the model tests.

    dev   few examples, new ones in each run (the default)
    ci    more, always the same: CI is not to fail on a commit that changed nothing (the default where CI is set)

HYPOTHESIS_PROFILE chooses one; MODEL_EXAMPLES and MODEL_SEED override the number of examples and the seed. The seed is
printed, and a failure prints the script of the shortest example found, to be pasted into regressions.py.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_common = settings(
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # minimise.py does the shrinking
    suppress_health_check=list(HealthCheck),
    stateful_step_count=30,
    print_blob=False,
    report_multiple_bugs=False,
)
_examples = os.environ.get("MODEL_EXAMPLES")
settings.register_profile("dev", _common, max_examples=int(_examples or 15))
settings.register_profile("ci", _common, max_examples=int(_examples or 200))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
