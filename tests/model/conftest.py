"""Hypothesis profiles of the model tests: `dev` (few examples, new ones each time) and `ci` (more, always the same).

Choose with HYPOTHESIS_PROFILE; where CI is set, `ci` is the default. MODEL_EXAMPLES overrides the count. A failure prints the script of
the shrunk example; paste it into regressions.py.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

common = settings(
    deadline=None,
    phases=(Phase.reuse, Phase.generate),  # minimise.py does the shrinking
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    stateful_step_count=30,
    print_blob=False,
    report_multiple_bugs=False,
)
settings.register_profile("dev", common, max_examples=int(os.environ.get("MODEL_EXAMPLES", "30")))
settings.register_profile(
    "ci", common, max_examples=int(os.environ.get("MODEL_EXAMPLES", "150")), derandomize=True, database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
