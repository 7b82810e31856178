"""What a structure says of its run: samples that fit its events, losses, costs."""

import pytest
import torch
from helpers.exact import same
from torch import nn

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.history.state import history_of, history_state
from diffstruct.states import Fields

X = torch.randn(512, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :3] * X[:, 2:]).argmax(1)
EAGER = ds.Rule(p_add=0.3, p_delete=0.5, max_units=12, grace_period=3)
TAYLOR = ds.TaylorImportance(price=3, settling=1e9)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8))

    def forward(self, x):
        return x + self.branch(x)


def plain():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def residual():
    blocks = nn.Sequential(Branch(), Branch(), Branch())
    return nn.Sequential(nn.Linear(5, 8), blocks, nn.LayerNorm(8), nn.Linear(8, 3))


def made(build=plain, steps=60, **options):
    torch.manual_seed(0)
    model = build()
    options = {"criterion": TAYLOR, "rule": EAGER, "interval": 1, "total_steps": steps, **options}
    return ds.Structure(
        model, torch.optim.Adam(model.parameters(), lr=0.02), example_inputs=(X[:32],), **options
    )


def train(structure, steps, told=lambda loss, step: loss):
    losses = []
    (optimizer,) = structure.training.optimizers
    for step in range(steps):
        rows = torch.arange(32) + 16 * (step % 30)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(structure.model(X[rows]), Y[rows])
        loss.backward()
        optimizer.step()
        structure.step(told(loss, step))
        losses.append(loss.item())
    return losses


def assert_consistent(record):
    """Events lead from the units at the start to as many as there are importances, in each sample."""
    assert len({width.name for width in record.widths}) == len(record.widths)
    for width in record.widths:
        assert width.samples
        for sample in width.samples:
            units = width.start
            for event in record.events[: sample.events]:
                if event.width == width.name:
                    assert all(0 <= unit < units for unit in event.removed)
                    units += event.added - len(event.removed)
                    assert units == event.size
            assert units == len(sample.importances)
        assert [sample.step for sample in width.samples] == sorted(sample.step for sample in width.samples)
    assert {event.width for event in record.events} <= {width.name for width in record.widths}


DEEP = {"1": ds.Rule(max_units=5, grace_period=3), "*": EAGER}
RUNS = {
    "plain": (plain, {}),
    "from one unit": (plain, {"start": 1, "criterion": None, "rule": None}),
    "budget": (plain, {"budget": ds.Budget(parameters=70, flops=60), "criterion": None, "rule": None}),
    "depth": (residual, {"depth": ["1"], "start": {"1": 1, "*": None}, "rule": DEEP}),
    "multipliers": (plain, {"criterion": ds.Multipliers(ds.L1Price(0.02)), "start": 3}),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::diffstruct.StructureWarning")
@pytest.mark.parametrize("case", RUNS)
def test_samples_fit_events_while_the_run_goes_on_and_when_it_is_finished(case, monkeypatch):
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 2)
    build, options = RUNS[case]
    structure = made(build, **options)
    train(structure, 30)
    record = structure.record()
    assert_consistent(record)
    assert (record.step, record.total_steps, record.status) == (30, 60, "running")
    train(structure, 30)
    plain = structure.finish()
    record = structure.record()
    assert_consistent(record)
    assert record.events
    assert record.status == "finished"
    assert record.cost["parameters"][-1] == (60, sum(each.numel() for each in plain.parameters()))
    assert ("multiply-adds" in record.cost) == (case == "budget")
    assert [width.name for width in record.widths if width.gone is None] == [*structure.widths]
    assert same(
        history_state(history_of(Fields(history_state(structure.history)))), history_state(structure.history)
    )


def test_the_history_has_the_mean_loss_since_the_last_decision_and_reads_tensors_only_there(monkeypatch):
    structure = made(interval=8)
    reads = []
    values = structure._losses.values
    monkeypatch.setattr(structure._losses, "values", lambda: reads.append(structure.steps) or values())
    losses = train(structure, 20)
    told = structure.history.measurements
    assert [each.update for each in told] == [8, 16]
    assert reads == [7, 15]
    for each, begin in zip(told, (0, 8), strict=True):
        assert each.loss == pytest.approx(sum(losses[begin : begin + 8]) / 8, rel=1e-12)
    assert told[0].units == 14
    record = structure.record()
    assert record.loss == [(each.update, each.loss) for each in told]


def test_losses_are_numbers_too_and_the_last_count_where_decisions_are_rare():
    structure = made(interval=50)
    losses = train(structure, 50, lambda loss, step: loss.item() if step % 2 else loss.double())
    (told,) = structure.history.measurements
    assert told.loss == pytest.approx(sum(losses[-32:]) / 32, rel=1e-12)


def test_a_loss_may_be_written_over_and_its_graph_goes():
    losses = made()._losses
    loss = torch.tensor(5.0, requires_grad=True) * 2
    losses.add(loss)
    with torch.no_grad():
        loss.zero_()
    assert not any(each.requires_grad for each in losses._last)
    assert losses.values() == [10.0]


@pytest.mark.parametrize("loss", [torch.zeros(2), "0.5", [0.5], torch.zeros(0)])
def test_what_is_no_loss_is_refused_and_nothing_has_changed(loss):
    structure = made()
    with pytest.raises(ds.ConfigurationError, match="takes the loss of the step"):
        structure.step(loss)
    assert structure.steps == 0


def test_without_a_loss_it_is_the_one_that_the_gradient_gives_away():
    structure = made()
    losses = train(structure, 40, lambda loss, step: None)
    record = structure.record()
    assert not structure.history.measurements
    assert record.unit_of_loss == "nats per prediction"
    assert record.loss[0][1] == pytest.approx(losses[0], rel=1e-4)
    assert record.loss[-1][1] < record.loss[0][1]


def test_a_step_that_fails_leaves_no_sample_and_no_loss_behind(monkeypatch):
    structure = made()
    train(structure, 10)
    before = history_state(structure.history)
    with monkeypatch.context() as patch:
        patch.setattr(structure.criterion, "resize", lambda changes, step: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(structure, 1)
    assert same(history_state(structure.history), before)
    assert structure.steps == 10
    structure.step()  # once more; the loss has not been lost
    assert [each.update for each in structure.history.measurements] == [*range(1, 12)]


def test_multiply_adds_are_known_where_units_cost_these():
    torch.manual_seed(0)
    model = plain()
    found = ds.find_widths(model, (X[:32],))
    structure = ds.Structure(
        model,
        torch.optim.Adam(model.parameters()),
        widths=found,
        total_steps=10,
        criterion=ds.TaylorImportance(cost=ds.MultiplyAdds(found)),
    )
    assert structure.record().cost == {"parameters": [(0, 123.0)], "multiply-adds": [(0, 106.0)]}
