"""When new blocks come, on plain numbers."""

import numpy as np

from diffstruct.structure.deepening import Deepening


class Blocks:
    """Blocks of a depth that grows as `Deepening` says, each of which must be worth a tenth."""

    def __init__(self, wait=5, most=16, at_once=False):
        self.deepening, self.most = Deepening(wait, at_once), most
        self.ages = np.zeros(1, np.int64)
        self.asked = []

    def decide(self, won, worth=2.0):
        self.deepening.tick(won)
        self.ages += 1

        def of(units):
            self.asked.append([*units])
            return worth

        add = self.deepening.more(self.ages, 0.1, of, self.most)
        self.ages = np.concatenate([self.ages, np.zeros(add, np.int64)])
        return add

    def many(self, decisions, won, worth=2.0):
        return sum(self.decide(won, worth) for _ in range(decisions))


def test_no_block_comes_while_the_network_wins_without():
    blocks = Blocks()
    assert not any(blocks.decide(won=0.1 * 1.03**step) for step in range(100))
    assert blocks.many(10, won=2.0) == 1  # a tenth in five decisions is what it would have to bring


def test_with_a_budget_blocks_come_at_once_and_others_as_long_as_these_pay():
    blocks = Blocks(most=4, at_once=True)
    assert [blocks.decide(won=0.1 * 1.5**step) for step in range(20)].count(1) == 3
    assert len(blocks.ages) == 4
    blocks = Blocks(most=4, at_once=True)
    assert blocks.decide(won=0.1) == 1
    assert blocks.many(20, won=0.2, worth=0.5) == 0


def test_half_as_many_as_there_are_come_while_the_last_ones_pay_at_once():
    blocks, won, added = Blocks(), 1.0, []
    for _ in range(6):
        while not (add := blocks.decide(won)):
            pass
        added.append(add)
        won *= 3  # at once, then nothing more
    assert added == [1, 1, 1, 2, 3, 4]
    assert blocks.asked[:4] == [[1], [2], [3], [4, 5]]  # those that came last, by their indices


def test_blocks_that_do_not_pay_are_waited_for_and_followed_by_one():
    blocks = Blocks()
    assert blocks.many(10, won=1.0) == 1
    assert blocks.many(50, won=1.0) == 0  # nothing was won since
    blocks = Blocks()
    assert blocks.many(10, won=1.0) == 1
    assert blocks.many(50, won=2.0, worth=0.5) == 0  # something was, but not by it
    assert blocks.many(6, won=2.0) == 1


def test_where_nothing_was_won_blocks_come():
    assert Blocks(most=4).many(50, won=0.0, worth=None) == 3


def test_after_one_that_has_gone_another_comes_and_is_given_twice_the_time():
    blocks, gaps = Blocks(), []
    for _ in range(3):
        decisions = 1
        while not blocks.decide(won=1.0, worth=0.5):
            decisions += 1
        gaps.append(decisions)
        blocks.ages = blocks.ages[:1]  # it goes
    assert gaps == [5, 5, 10]


def test_never_more_than_there_may_be():
    blocks, won = Blocks(most=3), 1.0
    for _ in range(10):
        blocks.many(10, won)
        won *= 3
    assert len(blocks.ages) == 3
