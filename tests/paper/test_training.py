"""A trainer goes on where another one was, bit for bit."""

import io

import pytest
import torch

from diffstruct.errors import StructureError
from diffstruct.paper.compiled.trainer import FusedTrainer
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.tasks import Phase, Reader, easy
from diffstruct.paper.training import Trainer


def reader():
    return Reader((Phase(0, easy(length=4_001)),), torch.Generator().manual_seed(0))


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("fixed_units", [None, 5])
@pytest.mark.parametrize("revision", [None, 1, 2, 3])
@pytest.mark.parametrize("trainer_class", [Trainer, FusedTrainer])
def test_a_trainer_goes_on_where_another_one_was(trainer_class, revision, fixed_units):
    def make(seed):
        return trainer_class(get_revision(revision), 4, seed, fixed_units)

    first, reads = make(1), reader()
    for _ in range(4):
        first.advance(reads.take(20))
    state = saved_and_loaded(first.state_dict())
    second, goes_on = make(2), reader()  # of another seed: nothing of its own is left
    second.load_state_dict(state)
    goes_on.load_state_dict(saved_and_loaded(reads.state_dict()))
    for _ in range(4):
        first.advance(reads.take(20))
        second.advance(goes_on.take(20))
    assert (first.updates, first.smoothed, first.units) == (second.updates, second.smoothed, second.units)
    assert first.history.events == second.history.events
    for one, other in zip(
        torch.utils._pytree.tree_leaves(first.state_dict()),
        torch.utils._pytree.tree_leaves(second.state_dict()),
        strict=True,
    ):
        if isinstance(one, torch.Tensor):  # what was not measured is not a number
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert one == other


def test_nothing_is_shared_with_a_state_that_was_loaded():
    first, second = (Trainer(get_revision(2), 4, 0, fixed_units=3) for _ in range(2))
    reads = reader()
    first.advance(reads.take(5))
    state = first.state_dict()
    second.load_state_dict(state)
    before = saved_and_loaded(state)
    second.advance(reads.take(5))
    leaves = torch.utils._pytree.tree_leaves
    for one, other in zip(leaves(state), leaves(before), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("revision", [None, 1, 3])
def test_memory_that_does_not_fit_is_refused(revision):
    first, second = (FusedTrainer(get_revision(revision), 4, 0, fixed_units=3) for _ in range(2))
    first.advance(reader().take(5))
    state = saved_and_loaded(first.state_dict())
    with pytest.raises(StructureError, match=r"of shape \[1, 3\]"):
        second.load_state_dict({**state, "hidden": torch.zeros(1, 2)})
    with pytest.raises(StructureError, match="float32"):
        second.load_state_dict({**state, "hidden": torch.zeros(1, 3, dtype=torch.float64)})
    for entries in state["optimizer"]["state"].values():
        name = next(name for name in entries if name != "step")
        entries[name] = entries[name].flatten()[:1]
    with pytest.raises(StructureError, match="expected a tensor of shape"):
        second.load_state_dict(state)
