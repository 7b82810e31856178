"""Structure on models that know nothing of it: what comes out at the end."""

import copy
import dataclasses
import warnings

import numpy as np
import pytest
import torch
from helpers.any_module import X, Y, branches, learn, sizes, structured
from torch import nn

import diffstruct as ds


def test_multipliers_come_and_go_and_leave_the_model_as_it_was():
    model = branches()
    names, mine = [*model.state_dict()], {name: id(p) for name, p in model.named_parameters()}
    outputs = copy.deepcopy(model)(X)
    model, optimizer, structure = structured(model, start=None, criterion=ds.Multipliers(ds.L1Price(1e-2)))
    torch.testing.assert_close(model(X), outputs)
    learn(model, optimizer, structure, 60)
    assert structure.history.added()
    assert all(width.size == len(factor) for width, factor in factors(structure))
    model.eval()
    # Without a reserve nothing is removed at the end, so the outputs must not change.
    nothing_is_sub_threshold(structure)
    outputs = model(X)
    plain = structure.finish()
    torch.testing.assert_close(plain(X), outputs)
    assert {name: id(p) for name, p in plain.named_parameters()} == mine
    assert sorted(plain.state_dict()) == sorted(names)
    assert [type(m).__name__ for m in plain.modules()] == [type(m).__name__ for m in branches().modules()]
    optimizer.step()


def nothing_is_sub_threshold(structure):
    for name, rule in structure.training.rules.items():
        structure.training.rules[name] = dataclasses.replace(rule, threshold=1e-12)


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

    _, _, structure = structured(Recurrent(), criterion=ds.Multipliers())
    assert [*structure.widths] == ["above"]
    assert "RNN.weight_ih_l0[dim 1], in front of which no multiplier can be put" in structure.explain()


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
    options = {"criterion": ds.Multipliers(ds.L1Price(1e-3))} if multiplier else {}
    model, optimizer, structure = structured(model, start=4, **options)
    learn(model, optimizer, structure, 40)
    nothing_is_sub_threshold(structure)
    outputs = model(X)
    weights = [id(p) for p in model.rnn.parameters()]
    plain = structure.finish()
    assert type(plain.rnn) is nn.GRU
    assert [id(p) for p in plain.rnn.parameters()] == weights
    torch.testing.assert_close(plain(X), outputs, rtol=1e-5, atol=1e-6)
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


@pytest.mark.skipif(
    torch.__version__ < "2.7", reason="its exporter and the onnxscript of today do not understand each other"
)
def test_a_finished_model_goes_to_onnx(tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra: pip install diffstruct[onnx]")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra: pip install diffstruct[onnx]")
    model, optimizer, structure = structured(branches())
    learn(model, optimizer, structure, 40)
    plain = structure.finish().eval()
    file = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter itself
        torch.onnx.export(plain, (X,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file)
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    np.testing.assert_allclose(found, plain(X).detach().numpy(), rtol=1e-4, atol=1e-5)
