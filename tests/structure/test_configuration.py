"""Sizes in the configuration that a model is built from: found by trying, and written where they are true."""

import copy
import dataclasses
import warnings

import pytest
import torch
from helpers.any_module import EAGER, X, learn
from torch import nn
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.structure.configuration import write_sizes
from diffstruct.structure.finish import write_eps
from diffstruct.surgery import operate


@dataclasses.dataclass
class Sub:
    last: int = 10


@dataclasses.dataclass
class Config:
    stream: int = 6
    hidden: int = 8
    layers: int = 2
    heads: int = 3
    head_width: int = 4
    inner: int | None = None
    sizes: tuple[int, ...] = (7, 9)
    sub: Sub = dataclasses.field(default_factory=Sub)
    eps: float = 0.1


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up, self.down = nn.Linear(config.stream, config.hidden), nn.Linear(config.hidden, config.stream)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Blocks(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.read = nn.Linear(5, config.stream)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.out = nn.Linear(config.stream, 3)

    def forward(self, x):
        x = self.read(x)
        for block in self.blocks:
            x = block(x)
        return self.out(x)


class Several(nn.Module):
    """Sizes in a tuple, in a part of the configuration, and one that is left open."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        inner = 4 * config.stream if config.inner is None else config.inner
        sizes = [5, *config.sizes, config.sub.last, inner, 3]
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return x


class Attention(nn.Module):
    explicit = True

    def __init__(self, config):
        super().__init__()
        self.config, self.heads = config, config.heads
        self.head_dim = (
            config.head_width if self.explicit else getattr(config, "head_dim", 12 // config.heads)
        )
        inner = self.heads * self.head_dim
        self.scale = self.head_dim**-0.5
        self.q, self.k, self.v = nn.Linear(5, inner), nn.Linear(5, inner), nn.Linear(5, inner)
        self.out = nn.Linear(inner, 3)

    def forward(self, x):
        shape = len(x), self.heads, self.head_dim
        q, k, v = (layer(x).view(shape).transpose(0, 1) for layer in (self.q, self.k, self.v))
        return self.out(((q @ k.mT * self.scale).softmax(-1) @ v).transpose(0, 1).flatten(1))


class Implicit(Attention):
    explicit = False


class Normed(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.read, self.out = nn.Linear(5, config.stream), nn.Linear(config.stream, 3)
        self.norm = nn.LayerNorm(config.stream, eps=config.eps)

    def forward(self, x):
        return self.out(self.norm(self.read(x)))


class Scaled(Blocks):
    """Divides by a size that the configuration says and no width is of."""

    def __init__(self, config):
        super().__init__(config)
        self.divisor = config.hidden

    def forward(self, x):
        return super().forward(x) / self.divisor


class Reading(Blocks):
    """Reads its configuration while it runs."""

    def forward(self, x):
        return super().forward(x) * self.config.hidden


def cut(model, **sizes):
    """Give widths other sizes, by patterns."""
    found = ds.find_widths(model, (X,))
    changes = []
    for name, width in found.widths.items():
        wanted = [size for pattern, size in sizes.items() if pattern in name]
        changes += [ds.Change(width, tuple(range(size)), 0) for size in wanted[:1]]
    operate(changes)
    write_eps(found.widths.values())
    return found


def built(kind=Blocks, **values):
    torch.manual_seed(0)
    return kind(Config(**values))


def assert_says(model):
    """The configuration gives a model that loads the state dict and is the same function."""
    fresh = type(model)(copy.deepcopy(model.config))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X))


CASES = {
    "layers that agree": (Blocks, {"up": 5, "read": 4}, {"hidden": 5, "stream": 4}),
    "several places": (
        Several,
        {"layers.0": 4, "layers.1": 6, "layers.2": 8, "layers.3": 20},
        {"sizes": (4, 6), "sub": Sub(8), "inner": 20},
    ),
    "heads": (Attention, {"q.heads": 2}, {"heads": 2}),
    "heads whose width would follow": (Implicit, {"q.heads": 2}, {"heads": 2, "head_dim": 4}),
    "a stream that is normalised": (Normed, {"read": 4}, {"stream": 4}),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_written_where_they_belong(name):
    kind, sizes, said = CASES[name]
    model = built(kind)
    found = cut(model, **sizes)
    assert write_sizes(model, found.widths, found.proof) is None
    changed = {key: value for key, value in vars(model.config).items() if vars(Config()).get(key) != value}
    assert changed == said
    assert_says(model)


def test_layers_that_differ_are_named_and_the_rest_is_written():
    model = built()
    found = cut(model, **{"0.up": 5, "1.up": 6, "read": 4})
    remark = write_sizes(model, found.widths, found.proof)
    assert model.config == Config(stream=4)
    assert "Config cannot say these sizes: 5 in blocks.0.up, 6 in blocks.1.up." in remark
    assert "(hidden is 5 in blocks.0.up, 6 in blocks.1.up): tie them" in remark
    fresh = ds.resize_to(Blocks(model.config), model.state_dict(), (X,))
    assert torch.equal(fresh(X), model(X))


def test_one_layer_that_is_as_it_was_differs_too():
    model = built()
    found = cut(model, **{"0.up": 5})
    assert "(hidden is 5 in blocks.0.up, 8 in blocks.1.up)" in write_sizes(model, found.widths, found.proof)
    assert model.config == Config()


UNSAID = {
    "another function of a size": (Scaled, {"up": 5}),
    "a configuration that is read while the model runs": (Reading, {"up": 5}),
}


@pytest.mark.parametrize("name", UNSAID)
def test_what_would_give_another_function_is_not_written(name):
    kind, sizes = UNSAID[name]
    model = built(kind)
    found = cut(model, **sizes)
    before = model(X)
    assert "cannot say" in write_sizes(model, found.widths, found.proof)
    assert model.config == Config()
    assert torch.equal(model(X), before)


def test_the_width_of_a_head_is_written_and_the_scale_of_attention_follows_it():
    model = built(Attention)
    found = cut(model, **{"q.head_width": 3})
    assert model.scale == pytest.approx(3**-0.5)
    before = model(X)
    assert write_sizes(model, found.widths, found.proof) is None
    assert model.config == Config(head_width=3)
    again = Attention(model.config)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(X), before)


def test_an_error_on_the_way_leaves_the_configuration_as_it_was(monkeypatch):
    model = built()
    found = cut(model, up=5)
    calls = []

    def fails(*_):
        calls.append(model.config.hidden)
        raise KeyboardInterrupt

    same = found.proof.same
    monkeypatch.setattr(found.proof, "same", lambda *a: fails() if model.config.hidden == 5 else same(*a))
    with pytest.raises(KeyboardInterrupt):
        write_sizes(model, found.widths, found.proof)
    assert calls == [5]
    assert model.config == Config()


def test_a_model_that_runs_on_its_example_inputs_no_more_is_judged_by_its_sizes():
    model = built().double()
    found = ds.find_widths(model, (X.double(),))
    operate([ds.Change(found.widths["read"], (0, 1, 2, 3), 0)])
    model.float()
    assert write_sizes(model, found.widths, found.proof) is None
    assert model.config == Config(stream=4)
    assert_says(model)


@pytest.mark.parametrize("config", [None, {"hidden": 8}, "base", 80])
def test_a_model_without_a_configuration_is_left_alone(config):
    model = built()
    model.config = config
    found = cut(model, up=5)
    assert write_sizes(model, found.widths, found.proof) is None
    assert model.config == config


def test_a_class_that_is_not_built_from_its_configuration_is_left_alone():
    class Other(Blocks):
        def __init__(self, config, more):
            super().__init__(config)

    torch.manual_seed(0)
    model = Other(Config(), 1)
    found = cut(model, up=5)
    assert write_sizes(model, found.widths, found.proof) is None
    assert model.config == Config()


def structured(model, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"criterion": ds.OutgoingNorm(ds.L1Price(1e-2)), "rule": EAGER, "start": 3, **options}
    options = {"example_inputs": (X,), "total_steps": 30, "interval": 1, **options}
    return optimizer, ds.Structure(model, optimizer, **options)


def test_finish_writes_the_sizes_of_tied_layers_and_of_copies():
    model = built()
    optimizer, structure = structured(model, tie=["*.up"])
    average = AveragedModel(model)
    structure.follow(average)
    learn(model, optimizer, structure, 30)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cannot say")
        plain = structure.finish()
    assert plain.config.hidden == structure.widths["*.up"].size != 8
    assert average.module.config == plain.config
    assert average.module.config is not plain.config
    assert_says(plain)
    assert_says(average.module)


def test_finish_warns_where_layers_differ():
    model = built()
    rules = {"*0.up": ds.Rule(min_units=3, max_units=3), "*": ds.Rule(min_units=2, max_units=2)}
    options = {"start": {"*0.up": 3, "*": 2}, "rule": rules, "exclude": ["read"]}
    optimizer, structure = structured(model, **options)
    learn(model, optimizer, structure, 30)
    with pytest.warns(ds.StructureWarning, match=r"hidden is 3 in blocks\.0\.up, 2 in blocks\.1\.up"):
        structure.finish()
    assert model.config == Config()
