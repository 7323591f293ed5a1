import numpy as np
import pytest

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.candidates import Told
from asyncdmtl.learning.held_out import HeldOut, held_out, holds_out

ALL = np.ones(2, np.bool_)


def noted(*rounds: tuple[float, float, float]) -> HeldOut:
    """Three candidates with two folds of the same losses, after these rounds."""
    made = HeldOut(3, 2)
    for losses in rounds:
        for p, loss in enumerate(losses):
            made.note(p, np.full(2, loss), ALL)
    return made


def test_candidates_far_from_the_best_are_without_hope_once_their_losses_rise() -> None:
    made = noted((1.0, 1.2, 1.3), (1.0, 1.1, 1.4))
    assert made.hopeful(3, 2).tolist() == [True, True, True]
    assert made.hopeful(3, 3).tolist() == [True, True, False]
    # In the end, losses that fall are too late.
    assert noted((1.0, 1.2, 1.3), (1.0, 1.15, 1.2)).hopeful(3, 3).all()
    assert noted((1.0, 1.2, 1.3), (1.0, 1.15, 1.2)).hopeful(3, 6).tolist() == [True, False, False]


def test_losses_are_those_of_the_best_models() -> None:
    made = noted((1.0, 1.0, 1.0))
    made.note(1, np.array([0.5, 0.5]), np.array([True, False]))
    assert made.losses.tolist() == [[1.0, 1.0], [0.5, 1.0], [1.0, 1.0]]


def test_a_fold_that_holds_out_nothing_does_not_count() -> None:
    made = HeldOut(2, 2)
    for rounds in ((1.0, 2.0), (1.0, 3.0)):
        for p, loss in enumerate(rounds):
            made.note(p, np.array([loss, np.nan]), ALL)
    assert made.hopeful(2, 3).tolist() == [True, False]
    assert HeldOut(2, 2).hopeful(2, 9).all()


def test_new_candidates_begin_with_the_losses_of_others_and_with_hope() -> None:
    made = noted((1.0, 1.3, 1.3), (1.0, 1.4, 1.4))
    made.follow(np.array([0, 1, 1]), 2)
    assert made.losses[2].tolist() == [1.4, 1.4]
    assert made.hopeful(3, 3).tolist() == [True, False, True]


def test_state_is_all_there_is() -> None:
    made, other = noted((1.0, 1.2, 1.3), (1.0, 1.1, 1.4)), HeldOut(3, 2)
    other.restore(made.state())
    np.testing.assert_array_equal(other.losses, made.losses)
    np.testing.assert_array_equal(other.hopeful(3, 3), made.hopeful(3, 3))
    state = made.state()
    state[-1] = 0.5
    with pytest.raises(UsageError, match="rose"):
        other.restore(state)


def test_losses_are_means_over_tasks_with_rows_in_and_out() -> None:
    shares = np.array([[1.0, 1.0, 1.0], [0.5, 0.8, 1.0], [1.0, 0.0, 1.0]])
    held: Floats = np.arange(9.0).reshape(1, 3, 3)
    told = Told(shares, held, held, np.zeros((1, 3, 3, 2)), np.zeros((1, 3, 3, 3)))
    assert holds_out(told).tolist() == [[True, True, False], [False, False, False]]
    np.testing.assert_array_equal(held_out(told), [[3.5, np.nan]])
