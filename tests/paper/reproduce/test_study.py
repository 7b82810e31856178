"""The bands of a figure."""

from helpers.results import HARD, result

from diffstruct.paper.reproduce.study import band


def test_a_band_holds_quartiles_point_by_point():
    runs = [result(HARD, seed, lambda u, seed=seed: seed * u, units=2 * seed + 1) for seed in range(5)]
    shown = band("learned size", runs)
    assert shown.updates.tolist() == list(range(31))
    assert shown.loss[:, 10].tolist() == [10, 20, 30]
    assert shown.units[:, 10].tolist() == [3, 5, 7]
