"""Structure on models that know nothing of it: what users can ask for, and what comes out."""

import copy
import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.utils import counters
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.rule.multiples import in_multiples
from diffstruct.rule.rule import RuleState

EAGER = ds.Rule(threshold=0.3, reserve=0.3, p_add=0.8, p_delete=0.5, max_units=96)
X, Y = torch.randn(32, 5, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


def mlp(hidden=(16, 12)):
    torch.manual_seed(0)
    sizes = [5, *hidden, 3]
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def learn(model, optimizer, structure, updates=30, run=None, check=lambda: None):
    for _ in range(updates):
        loss = nn.functional.cross_entropy((run or model)(X), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
        check()
    return loss.item()


def structured(model=None, optimizer=torch.optim.Adam, **options):
    model = model or mlp()
    optimizer = optimizer(model.parameters(), lr=1e-2)
    options = {"rule": EAGER, "every": 1, "salience": "outgoing", **options}
    return model, optimizer, ds.Structure(model, optimizer, example_inputs=(X,), **options)


def sizes(structure):
    return {name: width.size for name, width in structure.widths.items()}


def test_starts_from_one_unit_and_learns():
    model, optimizer, structure = structured()
    assert sizes(structure) == {"0": 1, "2": 1}
    before = nn.functional.cross_entropy(model(X), Y).item()
    assert learn(model, optimizer, structure, 120) < before
    assert min(sizes(structure).values()) > 1
    assert model[0].out_features == model[2].in_features == structure.widths["0"].size


@pytest.mark.parametrize(
    ("start", "expected"), [(None, (16, 12)), (3, (3, 3)), ({"0": 5}, (5, 1)), ({"0": None, "*": 2}, (16, 2))]
)
def test_start(start, expected):
    _, _, structure = structured(start=start)
    assert tuple(sizes(structure).values()) == expected


def test_names_choose_widths():
    assert sizes(structured(include=["0"])[2]) == {"0": 1}
    model, _, structure = structured(exclude=["0"])
    assert sizes(structure) == {"2": 1}
    assert model[0].out_features == 16
    assert "0.weight[0], 0.bias[0], 2.weight[1] (16): is excluded by name" in structure.explain()
    with pytest.raises(ds.StructureError, match="is excluded by name"):
        structured(exclude=["*"])
    with pytest.raises(ds.ConfigurationError, match=r"rule has a value for 'none'.*\['0', '2'\]"):
        structured(rule={"none": EAGER})


def test_rules_differ_by_name():
    still = ds.Rule(threshold=0.3, p_add=0, p_delete=0, p_spontaneous=0)
    model, optimizer, structure = structured(rule={"0": still, "*": EAGER})
    learn(model, optimizer, structure)
    assert sizes(structure)["0"] == 1 < sizes(structure)["2"]


def test_explains_what_is_not_learned():
    _, _, structure = structured()
    assert structure.explain().splitlines() == [
        "0.weight[1] (5): is a dimension of the input",
        "4.weight[0], 4.bias[0] (3): is a dimension of the output",
    ]


class Literal(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)).view(-1, 6))))


class Squeezed(Literal):
    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)).squeeze())))


def test_a_size_in_the_code_is_refused_with_its_reason():
    _, _, structure = structured(Literal())
    assert sizes(structure) == {"b": 1}
    assert "a.weight[0], a.bias[0], b.weight[1] (6): with a unit more or less" in structure.explain()


def test_a_width_that_cannot_start_so_small_is_refused():
    _, _, structure = structured(Squeezed())
    assert sizes(structure) == {"b": 1}
    assert "starting from 1 units" in structure.explain()
    assert sizes(structured(Squeezed(), start=2)[2]) == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X, r"write example_inputs=\(x,\)"),
        ((X[:, :2],), "does not run in evaluation mode"),
        ((), "does not run"),
    ],
)
def test_bad_example_inputs(inputs, message):
    model = mlp()
    with pytest.raises(ds.StructureError, match=message):
        ds.Structure(model, torch.optim.SGD(model.parameters()), salience="outgoing", example_inputs=inputs)


def test_keyword_inputs():
    model = mlp()
    structure = ds.Structure(
        model, torch.optim.SGD(model.parameters()), salience="outgoing", example_inputs={"input": X}
    )
    assert sizes(structure) == {"0": 1, "2": 1}


# Granularity


def test_sizes_are_multiples():
    model, optimizer, structure = structured(mlp((32, 16)), granularity={"0": 8, "2": 4})
    seen = []

    def check():
        seen.append(tuple(sizes(structure).values()))
        assert seen[-1][0] % 8 == seen[-1][1] % 4 == 0

    learn(model, optimizer, structure, 150, check=check)
    assert len(set(seen)) > 2
    structure.finish()
    check()
    with pytest.raises(ds.ConfigurationError, match="multiples of the granularity, 5"):
        structured(granularity=5)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_multiples_keep_what_the_rule_keeps(data):
    grain = data.draw(st.integers(1, 5))
    size = grain * data.draw(st.integers(1, 4))
    live = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    kept = sorted(data.draw(st.sets(st.integers(0, len(live) - 1))))
    add = data.draw(st.integers(0 if kept else 1, 6))
    saliences = np.array(data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)))
    memory = RuleState(np.arange(size), np.arange(size) % 2 == 0)
    own = RuleState.newborn(len(kept) + add)
    whole = in_multiples(ds.Decision(len(live), tuple(kept), add, own), live, saliences, memory, grain)
    decision = whole.decision
    assert decision.new_size % grain == 0
    assert len(kept) + add <= decision.new_size < len(kept) + add + grain
    assert {*live[kept].tolist()} <= {*decision.keep}
    assert [*decision.keep] == sorted(decision.keep)
    assert decision.add >= add
    assert len(whole.spare) == len(decision.state.ages) == len(decision.state.risen) == decision.new_size
    assert (~whole.spare).sum() == len(kept) + add  # as many as the rule asked for


# Growth


def test_a_width_is_reached_in_few_events():
    rule = ds.Rule(threshold=1e-9, reserve=0.25, p_add=1, p_delete=0, p_spontaneous=0, max_units=512)
    model = mlp((16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    structure = ds.Structure(
        model, optimizer, salience="outgoing", example_inputs=(X,), rule=rule, every=1, price=ds.L1Price(0)
    )
    with torch.no_grad():
        for _ in range(math.ceil(math.log(512, 1.25)) + 5):
            for p in model.parameters():
                p.add_(1.0)  # every unit rises above the threshold
            structure.step()
    assert structure.widths["0"].size == 512


def test_the_rule_is_asked_at_every_so_many_steps():
    model, optimizer, structure = structured(every=7)
    learn(model, optimizer, structure, 70)
    updates = {event.update for event in structure.history.events}
    assert updates
    assert all(update % 7 == 0 for update in updates)
    assert structure.updates == 70
    with pytest.raises(ds.ConfigurationError, match="every must be at least 1"):
        structured(every=0)


def test_the_price_is_the_same_however_often_it_is_taken():
    still = ds.Rule(threshold=0.3, p_add=0, p_delete=0, p_spontaneous=0)
    results = []
    for every in (1, 5):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        structure = ds.Structure(
            model,
            optimizer,
            salience="outgoing",
            example_inputs=(X,),
            rule=still,
            every=every,
            start=None,
            price=ds.L1Price(1e-3),
        )
        learn(model, optimizer, structure, 20)
        results.append([p.clone() for p in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(results[0][0], mlp()[0].weight)  # which reads no unit, and pays nothing


def test_only_units_that_are_learned_pay():
    torch.manual_seed(0)
    model = Branches()
    still = ds.Rule(threshold=0.3, p_add=0, p_delete=0, p_spontaneous=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    structure = ds.Structure(
        model,
        optimizer,
        salience="outgoing",
        example_inputs=(X,),
        rule=still,
        every=1,
        start=None,
        include=["left"],
    )
    before = model.middle.weight.detach().clone()
    structure.step()
    assert torch.equal(model.middle.weight[:, 6:], before[:, 6:])  # what reads the right branch
    assert (model.middle.weight[:, :6].abs() < before[:, :6].abs()).all()
    assert torch.equal(model.out.weight, branches().out.weight)


def branches():
    torch.manual_seed(0)
    return Branches()


# What else a training loop has


def test_schedulers_scalers_autocast_accumulation_and_frozen_parameters():
    model = mlp()
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)
    scaler = torch.amp.GradScaler("cpu")
    structure = ds.Structure(model, optimizer, salience="outgoing", example_inputs=(X,), rule=EAGER, every=1)
    for _ in range(40):
        for part in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(X[part::2]), Y[part::2])
            scaler.scale(loss / 2).backward()
        scaler.step(optimizer)
        scaler.update()
        structure.step()
        assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())
        optimizer.zero_grad()
        scheduler.step()
    assert structure.history.events
    assert model[0].bias.shape == (structure.widths["0"].size,)
    assert not model[0].bias.requires_grad


def test_gradients_that_are_being_accumulated_survive_an_event():
    model, optimizer, structure = structured(start=None)
    nn.functional.cross_entropy(model(X), Y).backward()
    before = model[0].weight.grad.clone()
    structure.carry_out(
        {
            "0": ds.Decision(16, tuple(range(1, 16)), 2, RuleState.newborn(17)),
            "2": ds.Decision(12, tuple(range(12)), 0, RuleState.newborn(12)),
        }
    )
    assert torch.equal(model[0].weight.grad[:15], before[1:])
    assert not model[0].weight.grad[15:].any()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()


def test_averages_follow():
    model, optimizer, structure = structured(start=4)
    average = AveragedModel(model, use_buffers=True)
    structure.follow(average)
    learn(model, optimizer, structure, 40, check=lambda: average.update_parameters(model))
    assert structure.history.events
    for mine, theirs in zip(model.parameters(), average.module.parameters(), strict=True):
        assert mine.shape == theirs.shape
        assert mine is not theirs
    assert repr(average.module) == repr(model)
    average(X)
    with pytest.raises(ds.StructureError, match="copy the model after Structure is made"):
        structure.follow(mlp())


def test_an_average_keeps_what_survives():
    model, _, structure = structured(start=None)
    average = AveragedModel(model)
    structure.follow(average)
    with torch.no_grad():
        for p in average.parameters():
            p.add_(1.0)
    old = average.module[2].weight.clone()
    structure.carry_out(
        {
            "0": ds.Decision(16, tuple(range(2, 16)), 3, RuleState.newborn(17)),
            "2": ds.Decision(12, tuple(range(12)), 0, RuleState.newborn(12)),
        }
    )
    assert torch.equal(average.module[2].weight[:, :14], old[:, 2:])
    assert torch.equal(average.module[2].weight[:, 14:], model[2].weight[:, 14:])


def test_others_go_on_seeing_the_live_parameters():
    model, optimizer, structure = structured()
    mine = {name: id(p) for name, p in model.named_parameters()}
    kept = model[0].weight
    learn(model, optimizer, structure)
    assert {name: id(p) for name, p in model.named_parameters()} == mine
    assert kept is model[0].weight
    assert kept.shape[0] == structure.widths["0"].size > 1


def test_a_compiled_model_stays_right_and_is_compiled_once_a_size():
    torch._dynamo.reset()
    counters.clear()
    model = mlp((32, 32))
    compiled = torch.compile(model, backend="eager", dynamic=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    structure = ds.Structure(
        compiled, optimizer, salience="outgoing", example_inputs=(X,), rule=EAGER, every=1, granularity=32
    )
    seen = set()

    def check():
        seen.add(tuple(sizes(structure).values()))
        torch.testing.assert_close(compiled(X), model(X))

    learn(model, optimizer, structure, 40, run=compiled, check=check)
    assert len(seen) > 1
    # Twice a size at most: with gradients, and where there are none.
    assert counters["stats"]["unique_graphs"] <= 2 * len(seen)
    assert structure.finish() is model


def test_the_same_seed_gives_the_same_run():
    runs = []
    for _ in range(2):
        model, optimizer, structure = structured(seed=3)
        learn(model, optimizer, structure, 50)
        runs.append(([p.clone() for p in model.parameters()], structure.history.events))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(one, other) for one, other in zip(runs[0][0], runs[1][0], strict=True))


# Multipliers for models without


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Linear(5, 4)
        self.norm, self.middle, self.out = nn.BatchNorm1d(10), nn.Linear(10, 7), nn.Linear(7, 3)

    def forward(self, x):
        joined = self.norm(torch.cat([self.left(x), self.right(x)], 1)).relu()
        return self.out(self.middle(joined).relu())


def test_multipliers_come_and_go_with_the_model_none_the_wiser():
    torch.manual_seed(0)
    model = Branches()
    names, mine = [*model.state_dict()], {name: id(p) for name, p in model.named_parameters()}
    said = copy.deepcopy(model)(X)
    model, optimizer, structure = structured(model, salience="multiplier", start=None, price=ds.L1Price(1e-2))
    torch.testing.assert_close(model(X), said)
    learn(model, optimizer, structure, 60)
    assert structure.history.added()
    assert all(width.size == len(factor) for width, factor in factors(structure))
    model.eval()
    # Without a reserve nothing is removed at the end, so nothing may change.
    structure.rules = {name: ds.Rule(threshold=1e-12) for name in structure.widths}
    said = model(X)
    plain = structure.finish()
    torch.testing.assert_close(plain(X), said)
    assert {name: id(p) for name, p in plain.named_parameters()} == mine
    assert sorted(plain.state_dict()) == sorted(names)
    assert [type(m).__name__ for m in plain.modules()] == [type(m).__name__ for m in Branches().modules()]
    optimizer.step()


def factors(structure):
    for width in structure.widths.values():
        for slot in width.having(ds.Role.MULTIPLIER):
            yield width, slot.tensor


def test_a_multiplier_that_no_weights_can_carry_is_refused():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.above, self.out = nn.Linear(5, 6), nn.RNN(6, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.above(self.below(x))[0])

    with pytest.raises(ds.StructureError, match=r"cannot be put in front of RNN\.weight_ih_l0"):
        structured(Recurrent(), salience="multiplier")


# Out the other end


class Tagger(nn.Module):
    def __init__(self, multiplier):
        super().__init__()
        self.rnn = ds.nn.GRU(5, 8)
        self.multiplier = ds.nn.Multiplier(8) if multiplier else nn.Identity()
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.multiplier(self.rnn(x)[0]))


@pytest.mark.parametrize("multiplier", [False, True])
def test_our_own_modules_become_torchs(multiplier):
    torch.manual_seed(0)
    model = Tagger(multiplier)
    options = {"salience": "multiplier", "price": ds.L1Price(1e-3)} if multiplier else {}
    model, optimizer, structure = structured(model, start=4, **options)
    learn(model, optimizer, structure, 40)
    structure.rules = {name: ds.Rule(threshold=1e-12) for name in structure.widths}
    said = model(X)
    weights = [id(p) for p in model.rnn.parameters()]
    plain = structure.finish()
    assert type(plain.rnn) is nn.GRU
    assert [id(p) for p in plain.rnn.parameters()] == weights
    torch.testing.assert_close(plain(X), said, rtol=1e-5, atol=1e-6)
    assert not any("diffstruct" in type(module).__module__ for module in plain.children())
    nn.functional.cross_entropy(plain(X), Y).backward()
    optimizer.step()


def test_finish_removes_the_reserve_and_leaves_one_unit_at_least():
    model, _, structure = structured(start=None, rule=ds.Rule(threshold=1e9, max_units=99))
    structure.finish()
    assert sizes(structure) == {"0": 1, "2": 1}
    assert model(X).shape == (32, 3)
    with pytest.raises(ds.StructureError, match="finished"):
        structure.step()


def test_a_finished_model_goes_to_onnx(tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra: pip install diffstruct[onnx]")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra: pip install diffstruct[onnx]")
    torch.manual_seed(0)
    model, optimizer, structure = structured(Branches())
    learn(model, optimizer, structure, 40)
    plain = structure.finish().eval()
    file = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter itself
        torch.onnx.export(plain, (X,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file)
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    np.testing.assert_allclose(found, plain(X).detach().numpy(), rtol=1e-4, atol=1e-5)
