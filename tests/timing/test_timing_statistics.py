"""Medians, intervals and shares of savings, against numbers worked out by hand."""

import numpy as np
import pytest

from ada3d_fx.timing import statistics


def test_a_share_of_the_saving_by_hand():
    # 0.6 of the multiply-adds promise 0.4; 0.7 of the time is 0.3 of it: three quarters
    assert statistics.realised(0.7, 1.0, 0.6) == pytest.approx(0.75)
    assert statistics.realised(1.2, 2.0, 0.6) == pytest.approx(1.0)
    assert statistics.realised(1.1, 1.0, 0.5) == pytest.approx(-0.2)  # slower than dense
    assert statistics.realised(0.9, 1.0, 1.0) is None  # nothing is to be saved
    assert (
        statistics.realised(0.9, 1.0, 1.2) is None
    )  # the selection network costs more than it saves


def test_an_interval_leaves_out_as_much_at_both_ends():
    values = np.arange(101.0)  # its quantile q is 100 q
    assert statistics.interval(values) == pytest.approx([2.5, 97.5])
    assert statistics.interval(values, 0.5) == pytest.approx([25, 75])


def test_equal_rounds_leave_no_doubt():
    rounds = {"dense": [2.0, 2.0, 2.0], "ours": [1.0, 1.0, 1.0]}
    assert statistics.medians_with_intervals(rounds)["ours"] == (1.0, [1.0, 1.0])
    (compared,) = statistics.against(rounds, "ours", ["dense"], 0.4).values()
    assert compared["time"] == 0.5 and compared["time_interval"] == [0.5, 0.5]
    assert compared["realised"] == pytest.approx(5 / 6)  # half of the time, where 0.6 is promised
    assert compared["realised_interval"] == pytest.approx([5 / 6, 5 / 6])


def test_rounds_are_paired_across_rows():
    # a machine that slows down: seconds vary by 4, but the ratio is one half in every round
    rounds = {"dense": [2.0, 4.0, 8.0], "ours": [1.0, 2.0, 4.0]}
    assert statistics.medians_with_intervals(rounds)["dense"] == (4.0, [2.0, 8.0])
    (compared,) = statistics.against(rounds, "ours", ["dense"], 0.5).values()
    assert compared["time_interval"] == [0.5, 0.5]
    assert compared["realised"] == 1 and compared["realised_interval"] == [1, 1]


def test_the_interval_of_two_rounds_by_hand():
    # draws of two rounds: both the first (1/4), both the second (1/4), or one each (1/2)
    drawn = statistics.drawn_medians({"a": [1.0, 3.0]})["a"]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1, 2, 3] and len(drawn) == 2000
    assert np.abs(counts / len(drawn) - [0.25, 0.5, 0.25]).max() < 0.04  # four standard deviations
    assert statistics.interval(drawn) == [1, 3]


def test_draws_are_the_same_each_time():
    rounds = {"a": [1.0, 2.0, 5.0, 3.0]}
    assert (statistics.drawn_medians(rounds)["a"] == statistics.drawn_medians(rounds)["a"]).all()


def test_where_nothing_is_to_be_saved_no_share_is_told():
    compared = statistics.against({"d": [2.0], "f": [1.0]}, "f", ["d"], 1.0)["d"]
    assert compared["time"] == 0.5
    assert compared["realised"] is None and compared["realised_interval"] is None


def test_the_fastest_is_that_of_the_smallest_median():
    rounds = {"a": [1.0, 9.0, 9.0], "b": [5.0, 5.0, 6.0], "c": [0.1, 0.1, 0.1]}
    assert statistics.fastest(rounds, ["a", "b"]) == "b"
    assert statistics.fastest(rounds, []) is None


@pytest.mark.parametrize("rounds", [{"a": []}, {"a": [1.0], "b": [1.0, 2.0]}, {}])
def test_rounds_that_do_not_fit_are_refused(rounds):
    with pytest.raises(ValueError, match="rounds"):
        statistics.drawn_medians(rounds)
