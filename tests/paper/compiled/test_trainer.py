"""The compiled training loop does what the ordinary one does: same seed, same decisions, same numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.criteria.importance import LARGEST_CONDITIONAL
from diffstruct.paper.compiled.trainer import FusedTrainer
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.tasks import Phase, Reader, easy, hard, text_file
from diffstruct.paper.training import Trainer


def eventful(number, **changes):
    """A revision that changes its structure often enough to be seen in a short run."""
    revision = get_revision(number)
    often = {"p_add": 0.05, "p_delete": 0.25, "p_spontaneous": 0.02, **changes}
    if number is None:  # whose times are fractions of the run; there is a decision at every tenth update
        criterion = replace(revision.criterion, memory=0.1, rise=0.1, settling=1e9)
        revision = replace(revision, cycles=600, criterion=criterion)
    return replace(revision, rule=replace(revision.rule, **often))


def train(
    trainer_class,
    revision,
    updates,
    *,
    fixed=None,
    dtype=torch.float64,
    seed=0,
    most=1000,
    phases=None,
    nudge=0.0,
):
    # Both the end of a text and a switch of task come up.
    phases = phases or (Phase(0, easy(length=4_001)), Phase(updates // 2, hard(length=3_001)))
    symbols = len(phases[0].task.alphabet)
    trainer = trainer_class(revision, symbols, seed, fixed_units=fixed, dtype=dtype)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(1 + nudge)
    reader = Reader(phases, torch.Generator().manual_seed(seed))
    while trainer.updates < updates:
        trainer.advance(reader.take(min(most, updates - trainer.updates)))
    return trainer


def state(trainer):
    """Every number that the next update depends on."""
    tensors = dict(trainer.model.state_dict())
    tensors["carried"] = trainer._state
    for name, parameter in trainer.model.named_parameters():
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            tensors[f"{name} {key}"] = value
    return tensors


def assert_same_events(one, other):
    """The same changes at the same steps; what removals have cost is measured, up to rounding."""
    mine, theirs = one.history.events, other.history.events
    assert [replace(event, cost=None) for event in mine] == [replace(event, cost=None) for event in theirs]
    costs = [[event.cost for event in events] for events in (mine, theirs)]
    assert [cost is None for cost in costs[0]] == [cost is None for cost in costs[1]]
    measured = [[cost for cost in each if cost is not None] for each in costs]
    np.testing.assert_allclose(*measured, rtol=1e-4, atol=1e-7)


def difference(one, other):
    """The largest difference of two trainers, relative to the largest entry of each tensor."""
    found = abs(one.smoothed - other.smoothed) / other.smoothed
    mine, theirs = state(one), state(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert mine[name].shape == tensor.shape
        assert mine[name].dtype == tensor.dtype
        gap = (mine[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1e-300)
        found = max(found, gap.item())
    return found


@pytest.mark.parametrize("number", [1, 2, 3, None])
@pytest.mark.parametrize("fixed", [None, 12])
def test_it_agrees_with_the_ordinary_loop(number, fixed):
    revision = eventful(number)
    ordinary, fused = (train(kind, revision, 500, fixed=fixed) for kind in (Trainer, FusedTrainer))
    assert_same_events(fused, ordinary)
    assert difference(fused, ordinary) < 1e-8
    if fixed is None:
        assert fused.history.added() >= 10
        assert fused.history.removed() >= 2
        assert fused.structure.steps == 500
        theirs = ordinary.structure.states["rnn"]
        assert fused.structure.states["rnn"].ages.tolist() == theirs.ages.tolist()
        assert fused.structure.states["rnn"].risen.tolist() == theirs.risen.tolist()
        chance = [trainer.structure.training.generator.bit_generator.state for trainer in (fused, ordinary)]
        assert chance[0] == chance[1]


@pytest.mark.parametrize("number", [1, 2, 3, None])
def test_it_agrees_in_single_precision(number):
    """Rounding grows from update to update, so fewer of them, and a tolerance for what has grown."""
    ordinary, fused = (
        train(kind, eventful(number), 150, dtype=torch.float32) for kind in (Trainer, FusedTrainer)
    )
    assert_same_events(fused, ordinary)
    assert len(fused.history.events) >= 3
    assert difference(fused, ordinary) < 1e-3


@settings(deadline=None, max_examples=25)
@given(
    number=st.sampled_from([1, 2, 3, None]),
    seed=st.integers(0, 1000),
    reserve=st.sampled_from([0, 1, 3, 0.3]),
    redraw_after=st.none() | st.integers(1, 20),
    max_units=st.integers(5, 12),
    p_delete=st.sampled_from([0.0, 0.3, 1.0]),
    grace_period=st.sampled_from([0, 3, 20]),
)
@example(
    number=1, seed=14, reserve=3, redraw_after=None, max_units=10, p_delete=1.0, grace_period=3
)  # chaotic
def test_it_decides_as_the_ordinary_loop_does_under_any_rule(number, seed, max_units, **changes):
    revision = eventful(number, p_add=0.5, max_units=max_units, **changes)
    ordinary, fused = (train(kind, revision, 80, seed=seed) for kind in (Trainer, FusedTrainer))
    assert_same_events(fused, ordinary)
    # Some of these networks are chaotic: in either loop rounding grows a hundredfold in ten updates.
    nudged = train(Trainer, revision, 80, seed=seed, nudge=1e-15)
    assert difference(fused, ordinary) < max(1e-8, 100 * difference(nudged, ordinary))


def test_it_agrees_with_the_ordinary_loop_through_a_whole_run_of_units_that_earn_their_price():
    """With the annealing at the end, and with deletions after grace periods."""
    revision = replace(get_revision(None), cycles=2000)
    ordinary, fused = (train(kind, revision, 2000) for kind in (Trainer, FusedTrainer))
    assert_same_events(fused, ordinary)
    assert fused.history.removed() >= 5
    assert max(event.step for event in fused.history.events if event.added) < 0.8 * 2000
    assert difference(fused, ordinary) < 1e-8
    mine, theirs = (trainer.structure.criterion.tracker for trainer in (fused, ordinary))
    for name in ("fisher", "mean_slopes", "importance"):
        found, expected = getattr(mine, name)["rnn"], getattr(theirs, name)["rnn"]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * max(1e-9, abs(expected).max()))


def test_it_agrees_with_the_ordinary_loop_on_widths_of_which_only_the_diagonal_is_kept(monkeypatch):
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 1)
    revision = eventful(
        None, reserve=LARGEST_CONDITIONAL, max_units=LARGEST_CONDITIONAL + 9, p_add=1.0, grace_period=2
    )
    revision = replace(revision, criterion=replace(revision.criterion, price=20))
    ordinary, fused = (train(kind, revision, 120, most=5) for kind in (Trainer, FusedTrainer))
    assert_same_events(fused, ordinary)
    assert fused.history.removed() >= 1
    assert max(event.size for event in fused.history.events) > LARGEST_CONDITIONAL
    assert difference(fused, ordinary) < 1e-8


@pytest.mark.parametrize("number", [2, None])
def test_how_the_updates_are_divided_changes_not_a_bit(number):
    whole, parts = (train(FusedTrainer, eventful(number), 300, most=most) for most in (1000, 7))
    assert whole.history.events == parts.history.events
    assert difference(whole, parts) == 0


@pytest.mark.parametrize("number", [3, None])
def test_the_two_loops_can_take_turns(number):
    revision, updates = eventful(number), 200
    reader = Reader((Phase(0, easy(length=4_001)),), torch.Generator().manual_seed(0))
    fused = FusedTrainer(revision, 4, 0, dtype=torch.float64)
    for turn in range(updates):
        Trainer.advance(fused, reader.take(1)) if turn // 10 % 2 else fused.advance(reader.take(1))
    ordinary = train(Trainer, revision, updates, phases=(Phase(0, easy(length=4_001)),))
    assert_same_events(fused, ordinary)
    assert difference(fused, ordinary) < 1e-8


def test_any_alphabet(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog, and so it goes on; " * 30)
    phases = (Phase(0, text_file(path)),)
    ordinary, fused = (train(kind, eventful(2), 100, phases=phases) for kind in (Trainer, FusedTrainer))
    assert fused.model.rnn.input_size > 25
    assert_same_events(fused, ordinary)
    assert difference(fused, ordinary) < 1e-8


@pytest.mark.parametrize("trainer_class", [Trainer, FusedTrainer])
def test_an_importance_that_is_not_finite_is_refused(trainer_class):
    """A price so high that the weights can still be written down, but not their sum."""
    revision = get_revision(3)
    criterion = ds.OutgoingNorm(replace(revision.criterion.price, strength=3e38))
    revision = replace(revision, criterion=criterion)
    trainer = trainer_class(revision, 4, 0)
    reader = Reader((Phase(0, easy()),), torch.Generator().manual_seed(0))
    with pytest.raises(ds.DivergenceError, match="a unit's importance is not finite"):
        trainer.advance(reader.take(5))
    assert trainer.history.events == []
    assert trainer.units == 1


def test_preparing_changes_nothing():
    trainer, other = (FusedTrainer(get_revision(2), 4, 0) for _ in range(2))
    trainer.prepare()
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])
    assert trainer.updates == trainer.structure.steps == 0
    assert (
        trainer.structure.training.generator.bit_generator.state
        == other.structure.training.generator.bit_generator.state
    )
    assert np.array_equal(trainer.structure.states["rnn"].ages, other.structure.states["rnn"].ages)


def test_a_graph_from_before_is_refused():
    """Its backward would mix weights of two times."""
    trainer = FusedTrainer(get_revision(2), 4, 0)
    loss = trainer.model(torch.eye(4))[0].square().sum()
    reader = Reader((Phase(0, easy()),), torch.Generator().manual_seed(0))
    trainer.advance(reader.take(1))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("number", [2, 3, None])
def test_after_the_total_steps_neither_loop_changes_the_structure(number):
    revision = replace(eventful(number), cycles=60)
    ordinary, fused = (train(kind, revision, 100) for kind in (Trainer, FusedTrainer))
    assert fused.structure.steps == ordinary.structure.steps == 100
    assert_same_events(fused, ordinary)
    assert all(event.step <= 60 for event in fused.history.events)
    assert difference(fused, ordinary) < 1e-8


def test_a_criterion_without_a_compiled_form_is_refused_with_what_to_use():
    revision = replace(get_revision(2), criterion=ds.Multipliers(ds.L1Price(1e-4)))
    with pytest.raises(ds.StructureError, match="in compiled code"):
        FusedTrainer(revision, 4, 0).prepare()
