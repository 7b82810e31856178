"""Channels of a stream that LayerNorm or RMSNorm average over come and go without a trace."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from helpers.streams import NORMS, TOKENS, network
from hypothesis import given, settings
from hypothesis import strategies as st
from surgery.test_optimizer_state import MUON, VARIANTS
from torch import nn

import diffstruct as ds
from diffstruct.surgery import Change, copy_of, operate
from diffstruct.width.silence import silence_writers, writers

READERS = (ds.Role.OUTGOING, ds.Role.RECURRENT)


def stream_of(model):
    """The width that lies in the embedding."""
    found = ds.find_widths(model, (TOKENS,)).widths.values()
    (stream,) = (width for width in found if width.normalisation is not None)
    return stream


def silent(changes, values):
    """New channels that no norm takes notice of; what reads them is random, so that they learn at once."""
    generator = np.random.default_rng(0)
    criterion = ds.AsTheModel()
    criterion(changes, values, dict.fromkeys((change.width.name for change in changes), 0.0), generator)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("tied", [False, True])
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_new_channels_change_nothing_and_get_gradients_at_once(norm, tied, data):
    size = data.draw(st.integers(2, 9))
    model = network(data.draw(st.integers(0, 9)), size=size, norm=NORMS[norm], tied=tied, uneven=0.0).double()
    stream = stream_of(model)
    before = model(TOKENS)
    add = data.draw(st.integers(1, 5))
    operate([Change(stream, tuple(range(size)), add)], initialize=silent)
    after = model(TOKENS)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12 * max(1.0, before.abs().max().item()))
    after.square().sum().backward()
    assert (model.tokens.weight.grad[TOKENS.unique(), size:].abs() > 0).any(0).all()


@pytest.mark.parametrize("norm", NORMS)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_what_was_added_is_removed_without_a_trace(norm, data):
    """Also where gains and biases are uneven, since nobody reads the new channels."""
    size, add = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
    model = network(data.draw(st.integers(0, 9)), size=size, norm=NORMS[norm]).double()
    stream, tensors = stream_of(model), copy.deepcopy(model.state_dict())
    numbers = {(m, n): v for m in model.modules() for n, v in vars(m).items() if isinstance(v, float)}
    before = model(TOKENS)
    operate([Change(stream, tuple(range(size)), add)], initialize=nobody_reads)
    torch.testing.assert_close(
        model(TOKENS), before, rtol=0, atol=1e-12 * max(1.0, before.abs().max().item())
    )
    assert any(getattr(*place) < value for place, value in numbers.items())
    operate([Change(stream, tuple(range(size)), 0)])
    assert {place: getattr(*place) for place in numbers} == numbers
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=1e-14, atol=0)


def nobody_reads(changes, values):
    silent(changes, values)
    for change in changes:
        for slot in change.width.having(*READERS):
            if not slot.feeds:
                values[slot.tensor].movedim(slot.dim, 0)[len(change.keep) :] = 0


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_silent_channel_can_be_removed_wherever_it_is(data):
    norm = NORMS[data.draw(st.sampled_from([*NORMS]))]
    size = data.draw(st.integers(3, 7))
    model = network(size=size, norm=norm, tied=data.draw(st.booleans())).double()
    stream = stream_of(model)
    gone = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    gone[:2] = False  # the deviation of a single channel from its mean is rounding alone
    gone = gone[torch.randperm(size, generator=torch.Generator().manual_seed(size))]
    with torch.no_grad():
        for slot in stream.having(*READERS):
            if not slot.feeds:
                slot.tensor.movedim(slot.dim, 0)[gone] = 0
        for slot in writers(stream):
            silence_writers(stream, slot, slot.tensor.data, gone)
    before = model(TOKENS)
    operate([Change(stream, tuple((~gone).nonzero().flatten().tolist()), 0)])
    torch.testing.assert_close(
        model(TOKENS), before, rtol=0, atol=1e-12 * max(1.0, before.abs().max().item())
    )


@pytest.mark.parametrize("norm", ["LayerNorm", "rms by hand"])
def test_a_thousand_insertions_and_removals_leave_the_function_where_it_was(norm):
    model = network(size=8, norm=NORMS[norm])
    stream, generator = stream_of(model), np.random.default_rng(0)
    eps = [each.written[0] for each in stream.rescaled if each.written]
    before, own = model(TOKENS).detach(), 8
    for _ in range(1000):
        extra = stream.size - own
        add = int(generator.integers(0, 4))
        going = generator.random(extra) < 0.5
        keep = (*range(own), *(own + np.flatnonzero(~going)))
        operate([Change(stream, tuple(map(int, keep)), add)], initialize=nobody_reads)
    drift = (model(TOKENS) - before).abs().max() / before.abs().max()
    assert drift < 1e-4
    operate([Change(stream, tuple(range(own)), 0)])
    assert [getattr(each.module, each.name) for each in stream.rescaled if each.written] == eps


def test_gains_of_a_copy_follow_its_own():
    model = network(norm=nn.LayerNorm)
    stream = stream_of(model)
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(1.5)
    before = average(TOKENS)
    twin = copy_of(model, average, [stream])
    operate([Change(stream, tuple(range(6)), 2)], initialize=nobody_reads, copies=[twin])
    torch.testing.assert_close(average.norm.weight[:6], model.norm.weight[:6] * 1.5)
    assert average.norm.eps == model.norm.eps < 1e-5
    operate([Change(stream, tuple(range(6)), 0)], copies=[twin])
    torch.testing.assert_close(average(TOKENS), before)


CASES = [(kind, options) for kind, variants in VARIANTS.items() for options in variants]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=lambda each: getattr(each, "__name__", ""))
def test_the_state_of_every_optimizer_stays_with_its_channel(kind, options):
    model = network(norm=nn.LayerNorm, uneven=0.0)
    stream = stream_of(model)
    matrices = kind is MUON
    parameters = [p for p in model.parameters() if p.ndim == 2 or not matrices]
    optimizer = kind(parameters, lr=1e-3, **options)
    step(model, optimizer)
    keep, before = (0, 2, 5), copy.deepcopy(optimizer.state_dict())
    operate([Change(stream, keep, 2)], [optimizer], silent)
    dims = {}
    for slot in stream.slots:
        dims.setdefault(id(slot.tensor), []).append(slot.dim)
    for index, parameter in enumerate(parameters):
        for key, old in before["state"].get(index, {}).items():
            new = optimizer.state[parameter][key]
            for dim in dims.get(id(parameter), []) if isinstance(old, torch.Tensor) else ():
                if old.ndim == parameter.ndim and old.shape[dim] == 6:
                    old, new = old.index_select(dim, torch.tensor(keep)), new.narrow(dim, 0, 3)
            assert torch.equal(torch.as_tensor(old), torch.as_tensor(new))
    step(model, optimizer)
    assert all(parameter.grad[..., -1].any() for parameter in (model.head.weight, model.blocks[0].up.weight))


def step(model, optimizer):
    optimizer.zero_grad()
    model(TOKENS).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("post", [False, True])
def test_a_stream_is_learned_through_ten_changes(norm, post):
    model = network(size=8, norm=NORMS[norm], post=post)
    stream, generator = stream_of(model), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    targets = torch.randint(9, TOKENS.shape, generator=generator)
    losses = []
    for round in range(10):
        for _ in range(15):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(TOKENS).flatten(0, 1), targets.flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        keep = torch.randperm(stream.size, generator=generator)[: max(2, stream.size - round % 3)]
        change = Change(stream, tuple(keep.sort().values.tolist()), (round + 1) % 3)
        operate([change], [optimizer], silent)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert np.median(losses[-5:]) < 0.5 * losses[0]


def test_a_mean_that_is_no_normalisation_is_refused_with_the_reason():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.gain, self.out = nn.Linear(4, 6), nn.Parameter(torch.ones(6)), nn.Linear(6, 2)

        def forward(self, x):
            x = self.gain * self.up(x)
            return self.out(x * x.mean(-1, keepdim=True))

    found = ds.find_widths(Mean(), (torch.randn(3, 4),))
    assert not found.widths
    assert "a silent unit changes the model's output" in found.explain()


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (partial(nn.LayerNorm, elementwise_affine=False), "has no gain that could make up for another size"),
        (partial(nn.RMSNorm, elementwise_affine=False), "has no gain that could make up for another size"),
    ],
)
def test_a_norm_without_gains_is_refused_with_the_reason(norm, reason):
    model = nn.Sequential(nn.Linear(4, 6), norm(6), nn.ReLU(), nn.Linear(6, 2))
    found = ds.find_widths(model, (torch.randn(3, 4),))
    assert not found.widths
    assert reason in found.explain()


def test_a_norm_over_two_streams_is_refused_with_the_reason():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.norm = nn.Linear(4, 3), nn.Linear(4, 5), nn.LayerNorm(8)
            self.out = nn.Linear(8, 2)

        def forward(self, x):
            return self.out(self.norm(torch.cat([self.one(x), self.two(x)], -1)))

    found = ds.find_widths(Both(), (torch.randn(3, 4),))
    assert not found.widths
    assert "LayerNorm takes the mean over it in norm (LayerNorm) together with other axes" in found.explain()
