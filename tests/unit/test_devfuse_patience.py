"""How long the loop looks for a request before it sleeps."""

from __future__ import annotations

import itertools

from unionfs.transport.devfuse.patience import Patience


def experiment(patience: Patience, found: int) -> None:
    """One experiment, of which so many tries find something; the loop counts a pause down afterwards."""
    for i in range(Patience.TRIALS):
        assert patience.pause == 0
        patience.looked(i < found)


def test_looking_stops_where_it_finds_nothing_and_is_tried_again_ever_later() -> None:
    patience = Patience(True)
    pauses = []
    for _ in range(12):
        experiment(patience, 0)
        pauses.append(patience.pause)
        patience.pause = 0
    assert pauses[:3] == [Patience.PAUSE, 2 * Patience.PAUSE, 4 * Patience.PAUSE]
    assert pauses[-1] == Patience.LONGEST_PAUSE and patience.looks == Patience.SHORT


def test_looking_goes_on_where_it_pays() -> None:
    patience = Patience(True)
    for _ in range(10):
        experiment(patience, Patience.TRIALS)
        assert (patience.looks, patience.pause) == (Patience.SHORT, 0)


def test_where_every_second_request_is_late_looking_is_tried_for_longer_and_stays_so_if_that_finds_it() -> None:
    patience = Patience(True)
    experiment(patience, Patience.TRIALS // 2)
    for _ in range(10):
        assert patience.looks == Patience.LONG
        experiment(patience, Patience.TRIALS)


def test_looking_long_for_little_is_given_up_and_tried_ever_more_seldom() -> None:
    patience = Patience(True)
    tried = []
    for i in range(2000):
        if patience.looks == Patience.LONG:
            tried.append(i)
        experiment(patience, Patience.TRIALS // 2)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert gaps[:4] == [3, 4, 6, 10] and gaps[-1] == Patience.LONGEST_LONG_PAUSE + 2


def test_looking_long_that_paid_once_is_not_held_against_earlier_failures() -> None:
    patience = Patience(True)
    experiment(patience, Patience.TRIALS // 2)
    experiment(patience, 0)  # long
    experiment(patience, Patience.TRIALS // 2)
    experiment(patience, Patience.TRIALS // 2)
    assert patience.looks == Patience.LONG
    experiment(patience, Patience.TRIALS)
    experiment(patience, 0)
    experiment(patience, Patience.TRIALS // 2)
    experiment(patience, Patience.TRIALS // 2)
    assert patience.looks == Patience.LONG  # after one experiment, as the first time


def test_on_one_cpu_nothing_is_looked_for() -> None:
    assert Patience(False).pause < 0
