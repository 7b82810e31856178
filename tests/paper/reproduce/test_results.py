"""The page of a reproduction."""

from helpers.results import FIXED, HARD, TRANSITION, result, summary_of

from diffstruct.paper.reproduce.results import write_results
from diffstruct.paper.reproduce.settings import FIGURES, Job
from diffstruct.paper.reproduce.side_by_side import Failure


def test_the_page_has_a_row_for_every_setting_and_phase():
    runs = [result(HARD, seed, 9.5 + seed, units=30) for seed in range(3)]
    runs += [result(FIXED, seed, 14, units=10) for seed in range(3)]
    runs += [result(TRANSITION, 0, 9.7, units=6)]
    page = write_results(summary_of(runs, FIGURES, [Failure(Job(FIXED, 4, 30), "it broke")]))
    lines = page.splitlines()
    assert "| 2 | 3 | 10.50 (10.00-11.00) | 30 (30-30) | 67% | about 10.0 | 27 | 8.96 | 13.52 |" in lines
    assert "| 2 | 10 units | 3 | 14.00 (14.00-14.00) | 10 (10-10) | 0% | 0 | 0.032 | about 14.0 |" in lines
    assert "| 2 | 27 units | 0 |  |  |  |  |  |  |" in lines
    assert "| 2 | easy, 30 updates | 1 | 9.70 (9.70-9.70) | 6 (6-6) | does not shrink | 9.61 |  |" in lines
    assert "- hard-r2-fixed10, seed 4: it broke" in lines
    assert "![Hard, revision 2](figures/hard-r2.png)" in lines
    assert "easy-r2.png" not in page  # nothing of it is finished
    for table in (block for block in page.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1
