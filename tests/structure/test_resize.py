"""A fresh model takes the sizes of a state dict, whole or not at all."""

import io

import pytest
import torch
from helpers.any_module import X, branches, learn, mlp, structured
from helpers.resizable import Attention, Tied, assert_untouched, everything
from torch import nn

import diffstruct as ds
from diffstruct.surgery import operate


def saved(model):
    """Its state dict, by way of a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def cut(model, inputs, **options):
    """Another size for every width, smaller and larger in turn, by units that speak."""
    found = ds.find_widths(model, inputs, **options)
    changes = []
    for index, width in enumerate(found.widths.values()):
        keep, add = range(1, width.size) if width.size > 1 else range(width.size), 2 * (index % 2)
        changes.append(ds.Change(width, tuple(keep), add))
    operate(changes, (), lambda _, values: [value.uniform_(0.1, 1) for value in values.values()])
    return {name: width.size for name, width in found.widths.items()}


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (5, 1)),
        nn.Conv1d(5, 8, 1),
        nn.BatchNorm1d(8),
        nn.PReLU(8),
        nn.ConvTranspose1d(8, 4, 3, padding=1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Tagger(nn.Module):
    def __init__(self, kind=nn.GRU):
        super().__init__()
        self.rnn = kind(5, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.rnn(x[:, None])[0][:, 0])


@pytest.mark.parametrize("given", [True, False], ids=["with inputs", "without"])
@pytest.mark.parametrize("build", [mlp, branches, convolutional, Tagger, lambda: Tagger(nn.LSTM), Tied])
def test_a_fresh_model_becomes_the_learned_one(build, given):
    learned, fresh = build().eval(), build().eval()
    cut(learned, (X,))
    parameters = [*map(id, fresh.parameters())]
    assert ds.resize_to(fresh, saved(learned), (X,) if given else None) is fresh
    assert torch.equal(fresh(X), learned(X))
    assert [*map(id, fresh.parameters())] == parameters
    integers = [
        [{k: v for k, v in vars(m).items() if type(v) is int} for m in each.modules()]
        for each in (learned, fresh)
    ]
    assert integers[0] == integers[1]
    optimizer = torch.optim.Adam(fresh.parameters())
    fresh(X).square().mean().backward()
    optimizer.step()


def test_a_learned_structure_is_saved_and_loaded():
    model, optimizer, structure = structured(branches())
    learn(model, optimizer, structure, 40)
    plain = structure.finish().eval()
    fresh = ds.resize_to(branches(), saved(plain)).eval()
    assert torch.equal(fresh(X), plain(X))


def test_what_is_no_state_dict_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ds.StructureError, match="a Sequential is no state dict"):
        ds.resize_to(model, model)


def test_at_its_own_sizes_it_is_loaded():
    torch.manual_seed(1)
    model = branches().eval()
    assert torch.equal(ds.resize_to(branches(), model.state_dict()).eval()(X), model(X))


def test_without_inputs_an_integer_that_may_have_to_follow_is_refused():
    model = Attention()
    cut(model, (X,))
    fresh = Attention()
    before = everything(fresh)
    with pytest.raises(ds.StructureError, match=r"whether Attention\.heads = 3 must follow"):
        ds.resize_to(fresh, model.state_dict())
    assert_untouched(fresh, before)


def test_where_shapes_do_not_tell_sizes_do():
    model = Attention()
    assert cut(model, (X,)) == {"q.heads": 2, "q.head_width": 5, "v": 3}
    fresh = Attention()
    before = everything(fresh)
    with pytest.raises(ds.StructureError, match=r"from which alone the sizes of .*'q\.heads': 3"):
        ds.resize_to(fresh, saved(model), (X,))
    assert_untouched(fresh, before)
    with pytest.raises(ds.StructureError, match="no number of units gives"):
        ds.resize_to(fresh, saved(model), (X,), sizes={"*.heads": 3})
    assert_untouched(fresh, before)
    ds.resize_to(fresh, saved(model), (X,), sizes={"*.heads": 2})
    assert fresh.heads == 2
    assert torch.equal(fresh(X), model(X))


@pytest.mark.parametrize("given", [True, False], ids=["with inputs", "without"])
def test_what_is_normalised_keeps_its_eps(given):
    def build(units=8):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, units), nn.LayerNorm(units, eps=0.1), nn.Linear(units, 3))

    model, fresh = build(7), build()
    ds.resize_to(fresh, saved(model), (X,) if given else None)
    assert (fresh[1].eps, fresh[1].normalized_shape) == (0.1, (7,))
    assert torch.equal(fresh(X), model(X))


def test_declared_widths_need_no_inputs():
    class Declared(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = ds.nn.GRU(5, 8), nn.Linear(8, 3)
            self.rnn.feeds(self.out)

        def forward(self, x):
            return self.out(self.rnn(x[:, None])[0])

    torch.manual_seed(0)
    model, fresh = Declared(), Declared()
    cut(model, None)
    ds.resize_to(fresh, model.state_dict())
    assert torch.equal(fresh(X), model(X))
    assert fresh.rnn.hidden_size == 7


def changed(state, **changes):
    return {**state, **changes}


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


WRONG = {
    "a key is missing": (lambda s: without(s, "2.bias"), "it lacks 2.bias"),
    "a key too many": (lambda s: changed(s, extra=torch.ones(3)), "the model has no extra"),
    "no tensor": (lambda s: s | {"2.bias": "rm -rf"}, "2.bias is a str"),
    "another number of dimensions": (
        lambda s: s | {"2.bias": torch.ones(1, 12)},
        r"2.bias has shape \[1, 12\]",
    ),
    "integers": (lambda s: s | {"2.bias": torch.ones(12, dtype=torch.int64)}, "2.bias has dtype torch.int64"),
    "no units": (lambda s: s | {"0.weight": torch.ones(0, 5)}, r"0.weight is empty"),
    "an output of another size": (
        lambda s: s | {"4.weight": torch.ones(4, 12), "4.bias": torch.ones(3)},
        r"4\.(weight|bias)",
    ),
    "sizes that contradict": (lambda s: s | {"0.bias": torch.ones(9)}, r"0\.(bias|weight)"),
    "fewer entries than its shape says": (
        lambda s: s | {"0.bias": torch.ones(1).expand(1 << 40)},
        "0.bias has shape .* but fewer entries",
    ),
    "no values": (lambda s: s | {"0.bias": torch.ones(16, device="meta")}, "0.bias is in it without values"),
    "sparse": (lambda s: s | {"0.bias": torch.ones(16).to_sparse()}, "0.bias is in it without values"),
}


@pytest.mark.parametrize("given", [True, False], ids=["with inputs", "without"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_state_dict_is_refused_and_changes_nothing(name, given):
    make, message = WRONG[name]
    model = mlp()
    before = everything(model)
    with pytest.raises(ds.StructureError, match=message):
        ds.resize_to(model, make(mlp().state_dict()), (X,) if given else None)
    assert_untouched(model, before)


def test_a_size_that_no_width_explains_is_refused():
    model = mlp()
    before = everything(model)
    with pytest.raises(
        ds.StructureError, match=r"0\.weight has shape .*no width[^$]*is a dimension of the input"
    ):
        ds.resize_to(model, mlp().state_dict() | {"0.weight": torch.ones(16, 6)}, (X,))
    assert_untouched(model, before)


@pytest.mark.parametrize("shape", [(5, 7), (5, 8)])
@pytest.mark.parametrize("given", [True, False], ids=["with inputs", "without"])
def test_a_shared_parameter_of_which_there_are_two_is_refused(given, shape):
    model = Tied()
    before = everything(model)
    state = changed(model.state_dict(), **{"out.weight": torch.ones(shape)})
    with pytest.raises(ds.StructureError, match=r"out\.weight and embed\.weight are one parameter"):
        ds.resize_to(model, state, (X,) if given else None)
    assert_untouched(model, before)


def test_a_shared_parameter_may_be_saved_once():
    model = Tied()
    cut(model, (X,))
    fresh = ds.resize_to(Tied(), without(saved(model), "out.weight"))
    assert fresh.out.weight is fresh.embed.weight
    assert torch.equal(fresh(X), model(X))


def test_a_buffer_that_is_not_saved_is_not_made_up():
    class Fleeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
            self.register_buffer("mask", torch.arange(6.0), persistent=False)

        def forward(self, x):
            return self.b(self.a(x) * self.mask)

    model, fresh = Fleeting(), Fleeting()
    cut(model, (X,))
    before = everything(fresh)
    with pytest.raises(ds.StructureError, match=r"mask.*state dicts do not hold"):
        ds.resize_to(fresh, model.state_dict(), (X,))
    assert_untouched(fresh, before)


@pytest.mark.parametrize("given", [True, False], ids=["with inputs", "without"])
def test_a_failure_while_it_is_loaded_is_undone(given, monkeypatch):
    learned, fresh = mlp(), mlp()
    cut(learned, (X,))
    before = everything(fresh)
    load = fresh[4]._load_from_state_dict

    def fails(*args):
        load(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(fresh[4], "_load_from_state_dict", fails)
    with pytest.raises(KeyboardInterrupt):
        ds.resize_to(fresh, learned.state_dict(), (X,) if given else None)
    monkeypatch.undo()
    assert_untouched(fresh, before)


def test_sizes_are_checked():
    state = mlp().state_dict()
    with pytest.raises(ds.ConfigurationError, match="found with example_inputs"):
        ds.resize_to(mlp(), state, sizes={"0": 3})
    with pytest.raises(ds.ConfigurationError, match="'heads'"):
        ds.resize_to(mlp(), state, (X,), sizes={"heads": 3})
    for wrong in (0, 2.5, True):
        with pytest.raises(ds.ConfigurationError, match="1 at least"):
            ds.resize_to(mlp(), state, (X,), sizes={"0": wrong})


def test_a_model_that_has_not_been_run_yet_is_refused():
    with pytest.raises(ds.StructureError, match="run the model once"):
        ds.resize_to(nn.Sequential(nn.LazyLinear(3)), nn.Sequential(nn.Linear(5, 3)).state_dict())
