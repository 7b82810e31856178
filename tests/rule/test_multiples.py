"""What the rule decides unit by unit, carried out in multiples."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffstruct.rule import Decision, RuleState, in_multiples


@settings(max_examples=200)
@given(st.data())
def test_multiples_keep_what_the_rule_keeps(data):
    multiple_of = data.draw(st.integers(1, 5))
    size = multiple_of * data.draw(st.integers(1, 4))
    live = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    kept = sorted(data.draw(st.sets(st.integers(0, len(live) - 1))))
    add = data.draw(st.integers(0 if kept else 1, 6))
    importances = np.array(data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)))
    memory = RuleState(np.arange(size), np.arange(size) % 2 == 0)
    own = RuleState.initial(len(kept) + add)
    whole = in_multiples(Decision(len(live), tuple(kept), add, own), live, importances, memory, multiple_of)
    decision = whole.decision
    assert decision.new_size % multiple_of == 0
    assert len(kept) + add <= decision.new_size < len(kept) + add + multiple_of
    assert {*live[kept].tolist()} <= {*decision.keep}
    assert [*decision.keep] == sorted(decision.keep)
    assert decision.add >= add
    assert len(whole.spare) == len(decision.state.ages) == len(decision.state.risen) == decision.new_size
    assert (~whole.spare).sum() == len(kept) + add  # as many as the rule asked for
