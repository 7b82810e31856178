"""accelerate: a structure is one of the objects that an Accelerator saves and loads."""

import copy

import pytest
import torch
from accelerate import Accelerator
from helpers.exact import same
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import diffstruct as ds
from diffstruct.criteria import removal

pytestmark = pytest.mark.slow
X = torch.randn(320, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :3] * X[:, 2:]).argmax(1)
OPTIONS = {
    "criterion": ds.TaylorImportance(price=3, settling=1e9),
    "rule": ds.Rule(p_add=0.3, p_delete=0.5, max_units=12, grace_period=3),
    "interval": 1,
}
STEPS = 60


@pytest.fixture(autouse=True, scope="module")
def measure_at_each_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "FORWARDS_A_STEP", 2)
        yield


class Run:
    """A loop as accelerate's users write it; a step of the optimizer is two batches."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        layers = nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
        model = nn.Sequential(*layers)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        prepared = self.accelerator.prepare(model, optimizer, scheduler, DataLoader(TensorDataset(X, Y), 32))
        self.model, self.optimizer, self.scheduler, self.loader = prepared
        example = {"example_inputs": (X[:32],), "total_steps": STEPS}
        self.structure = ds.Structure(self.model, self.optimizer, **example, **OPTIONS)
        self.accelerator.register_for_checkpointing(self.structure)

    def train(self, epochs):
        for _ in range(epochs):
            for x, y in self.loader:
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(nn.functional.cross_entropy(self.model(x), y))
                    self.optimizer.step()
                    self.scheduler.step()
                    if self.accelerator.sync_gradients:
                        self.structure.step()
                    self.optimizer.zero_grad()

    def state(self):
        objects = self.model, self.optimizer, self.scheduler, self.structure
        return copy.deepcopy([each.state_dict() for each in objects])


def test_a_run_goes_on_bit_for_bit_from_its_saved_state_and_comes_back_to_it(tmp_path):
    run = Run()
    run.train(6)
    run.accelerator.save_state(tmp_path)
    middle = run.state()
    run.train(6)
    end = run.state()
    assert run.structure.steps == STEPS  # of 120 batches
    shapes = [[each.shape for each in state[0].values()] for state in (middle, end)]
    assert shapes[0] != shapes[1]
    assert run.structure.history.added() > 0
    assert run.structure.history.removed() > 0

    again = Run(seed=1)
    again.accelerator.load_state(tmp_path)
    assert same(again.state(), middle)
    again.train(6)
    assert same(again.state(), end)

    run.accelerator.load_state(tmp_path)  # the best one, say
    assert same(run.state(), middle)
    plain = run.structure.finish()
    assert {type(each) for each in plain} == {nn.Linear, nn.ReLU, nn.Dropout}
