"""The Hypothesis state machine: one rule per operation, feeding a `Trial`.

`run` is what tests call. Paths are drawn from the model's present tree, so that most operations meet something.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection
from typing import Any

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from .layers import PRIVILEGED, Inode, Stack
from .minimise import minimised
from .strategies import (
    data,
    directory_modes,
    existing,
    free,
    known,
    modes,
    offsets,
    sizes,
    slots,
    targets,
    times,
    xattr_names,
    xattr_values,
)
from .trial import Arena, Disagreement, Trial

Strategy = st.SearchStrategy[Any]

#: operation (up to a slash): its arguments, given the root of the model's tree
ARGUMENTS: dict[str, Callable[[Inode], tuple[Strategy, ...]]] = {
    "create": lambda root: (free(root), modes),
    "creat": lambda root: (st.one_of(known(root), free(root)), modes),
    "mkdir": lambda root: (free(root), directory_modes),
    "symlink": lambda root: (targets, free(root)),
    "mkfifo": lambda root: (free(root), modes),
    "link": lambda root: (known(root), free(root)),
    "unlink": lambda root: (known(root),),
    "rmdir": lambda root: (known(root),),
    "rename": lambda root: (known(root), st.one_of(known(root), free(root))),
    "rename/flags": lambda root: (known(root), st.one_of(known(root), free(root)), st.sampled_from([1, 2])),
    "write": lambda root: (known(root), offsets, data),
    "append": lambda root: (known(root), data),
    "truncate": lambda root: (known(root), sizes),
    "chmod": lambda root: (or_root(root), st.one_of(modes, directory_modes)),
    "utime": lambda root: (or_root(root), times),
    "setxattr": lambda root: (or_root(root), xattr_names, xattr_values, st.sampled_from([0, 0, 1, 2])),
    "removexattr": lambda root: (or_root(root), xattr_names),
    "getxattr": lambda root: (known(root), xattr_names),
    "stat": lambda root: (known(root),),
    "readlink": lambda root: (known(root),),
    "readdir": lambda root: (known(root),),
    "read": lambda root: (known(root),),
    "open": lambda root: (slots, known(root), st.booleans()),
    "tmpfile": lambda root: (slots, or_root(root), modes),
    "close_slot": lambda root: (slots,),
    "hread": lambda root: (slots,),
    "hwrite": lambda root: (slots, offsets, data),
    "htruncate": lambda root: (slots, sizes),
    "hstat": lambda root: (slots,),
    "hchmod": lambda root: (slots, modes),
    "hlink": lambda root: (slots, free(root)),
    "hsetxattr": lambda root: (slots, xattr_names, xattr_values),
    "remount": lambda root: (),
    "drop_caches": lambda root: (),
    "refresh": lambda root: (),
    "rotate": lambda root: (),
}
if PRIVILEGED:
    ARGUMENTS["chown"] = lambda root: (or_root(root), *_ids())
    ARGUMENTS["hchown"] = lambda root: (slots, *_ids())


def or_root(root: Inode) -> Strategy:
    return st.one_of(known(root), known(root), st.just("")) if existing(root) else st.just("")


def _ids() -> tuple[Strategy, Strategy]:
    return st.sampled_from([0, 1000, -1]), st.sampled_from([0, 1001, -1])


def run(
    make: Callable[[Stack], Arena], examples: st.SearchStrategy[Stack], without: Collection[str] = (), **changes: Any
) -> None:
    """Try the current profile's number of examples, with `changes` to its settings.

    `without`: keys of ARGUMENTS that are left out. The Disagreement raised has the shortest script found.
    """
    number = os.environ.get("MODEL_SEED") or (
        "0" if os.environ.get("CI") else str(random.SystemRandom().getrandbits(32))
    )
    chosen = settings(settings.default, **changes)
    print(f"MODEL_SEED={number} MODEL_EXAMPLES={chosen.max_examples}")
    tested = seed(int(number))(machine(make, examples, without))
    umask = os.umask(0)
    try:
        run_state_machine_as_test(tested, settings=chosen)
    except Disagreement as found:
        raise minimised(found, make) from None
    except FlakyFailure as flaky:  # a race, or a disturbance from outside: what the first run said matters
        raise AssertionError("not reproducible:\n" + "\n".join(str(e) for e in flaky.exceptions)) from flaky
    finally:
        os.umask(umask)


def machine(
    make: Callable[[Stack], Arena], examples: st.SearchStrategy[Stack], without: Collection[str] = ()
) -> type[RuleBasedStateMachine]:
    """The state machine over the arenas that `make` builds for the stacks of `examples`."""

    def begin(self: Any, stack: Stack) -> None:
        self.trial = None
        self.trial = Trial(stack, make)

    def teardown(self: Any) -> None:
        trial: Trial | None = getattr(self, "trial", None)
        if trial is not None:
            try:
                trial.finish()
            finally:
                trial.close()

    members: dict[str, Any] = {name.replace("/", "_"): _rule(name) for name in ARGUMENTS if name not in without}
    members["begin"] = initialize(stack=examples)(begin)
    members["teardown"] = teardown
    return type("Machine", (RuleBasedStateMachine,), members)


def _rule(name: str) -> Any:
    def step(self: Any, choice: Any) -> None:
        strategies = ARGUMENTS[name](self.trial.model.root)
        self.trial.apply((name.partition("/")[0], *choice.draw(st.tuples(*strategies))))

    step.__name__ = name.replace("/", "_")
    return rule(choice=st.data())(step)
