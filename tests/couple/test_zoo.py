"""Every architecture of the zoo: its widths are found, proved, learned, and leave a plain model behind."""

import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from zoo import CASES, library_cases

import diffstruct as ds
from diffstruct.couple.outputs import tensors_in
from diffstruct.surgery import Change, operate
from diffstruct.width.layout import owners

CASES = [*CASES, *library_cases()]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
EAGER = ds.Rule(threshold=0.3, reserve=1, p_add=0.7, p_delete=0.5, max_units=999, redraw_after=2)
READERS = (ds.Role.OUTGOING, ds.Role.RECURRENT)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads cost small models more than they give."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def made(case):
    torch.manual_seed(0)
    return case.build(), case.inputs()


def snapshot(model):
    """All that a model has, to the bit."""
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return tensors, repr(model), [module.training for module in model.modules()]


def assert_is(model, before):
    tensors, shown, modes = before
    assert repr(model) == shown
    assert [module.training for module in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def places(model, width):
    """The places of a width, each tensor by the first of its names."""
    names: dict[int, str] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        names.setdefault(id(tensor), name)
    return frozenset(f"{names[id(slot.tensor)]}[{slot.dim}]" for slot in width.slots)


def say(model, inputs):
    """What the model says in evaluation mode, with the same random numbers each time."""
    modes = {module: module.training for module in model.modules()}
    torch.manual_seed(1)
    with torch.no_grad():
        said = [tensor.clone() for tensor in tensors_in(model.eval()(*inputs))]
    for module, mode in modes.items():
        module.training = mode
    return said


def assert_same(found, expected, rtol=1e-4):
    for mine, right in zip(found, expected, strict=True):
        scale = right.abs().max().item() if right.is_floating_point() else 0
        torch.testing.assert_close(mine, right, rtol=rtol, atol=rtol * scale)


def loud(generator):
    """What makes all entries of new units random, but silent what reads them."""

    def write(changes, values):
        sizes = {change.width.axis: change.new_size for change in changes}
        for reading in (False, True):
            for change in changes:
                for slot in change.width.slots:
                    if reading == (slot.role in READERS):
                        born = owners(slot.layout, change.width.axis, sizes) >= change.size
                        value = values[slot.tensor]
                        entries = value.movedim(slot.dim, 0)[born]
                        noise = torch.rand(entries.shape, generator=generator) + 0.5
                        value.movedim(slot.dim, 0)[born] = (noise * (not reading)).to(value)

    return write


@EVERY_CASE
def test_widths_are_found_learned_and_left_in_a_plain_model(case):
    model, inputs = made(case)
    before, chance = snapshot(model), torch.get_rng_state()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"example_inputs": inputs, "start": None, "rule": EAGER, "every": 1, "salience": "outgoing"}
    if not (case.learned or case.allowed):
        with pytest.raises(ds.StructureError, match="has no width that could be learned"):
            ds.Structure(model, optimizer, **options)
        assert_is(model, before)
        return
    structure = ds.Structure(model, optimizer, **options)
    assert torch.equal(torch.get_rng_state(), chance)
    assert_is(model, before)
    assert_found(case, model, structure)
    silent_units_come_and_go(model, inputs, structure.widths.values())
    learn(model, inputs, optimizer, structure)
    plain = structure.finish()
    assert plain is model
    assert not any(type(module).__module__.startswith("diffstruct") for module in plain.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())
    assert_tells_the_truth(plain)
    said = say(plain, inputs)
    assert all(tensor.isfinite().all() for tensor in said if tensor.is_floating_point())
    assert_loads_into_the_users_class(case, plain, structure, inputs, said)
    if case.exports:
        assert_same(say(exported(plain, inputs), inputs), said)


SOME = {
    *("deep_mlp", "batchnorm_mlp", "swiglu", "resnet_basic", "depthwise_separable", "densenet_block"),
    *("shufflenet_unit", "gru", "lstm_two_layers", "handwritten_lstm", "tied_autoencoder", "gpt_tied"),
    *("grouped_query_attention", "squeeze_and_excitation"),
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SOME], ids=lambda case: case.name)
def test_units_earn_their_price(case):
    """The default way, with trials so short that units go as well as come."""
    model, inputs = made(case)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    price = ds.UnitPrice(nats=1e-3, ease=1e-3)  # nobody is kept from coming
    rule = ds.Rule(threshold=1e-3, reserve=3, p_add=1, p_delete=0.5, max_units=999, trial=2)
    structure = ds.Structure(
        model, optimizer, example_inputs=inputs, updates=10, every=1, price=price, rule=rule
    )
    readers = {id(slot.tensor) for width in structure.widths.values() for slot in width.having(*READERS)}
    heard = set()

    def look():
        for name, width in structure.widths.items():
            found = structure.ledger.saliences(width)
            assert found.shape == (width.size,)
            assert found.isfinite().all()
            if found.numpy()[structure.states[name].ages > 0].any():
                heard.add(name)

    learn(model, inputs, optimizer, structure, look)
    assert heard == {*structure.widths}  # at some time: whoever is left at the end can be a dead ReLU
    assert structure.history.added() >= 3
    plain = structure.finish()
    assert not any(p._post_accumulate_grad_hooks for p in plain.parameters() if id(p) in readers)
    assert_tells_the_truth(plain)
    said = say(plain, inputs)
    assert all(tensor.isfinite().all() for tensor in said if tensor.is_floating_point())
    assert_loads_into_the_users_class(case, plain, structure, inputs, said)


def test_the_cases_of_which_units_earn_their_price_are_there():
    assert {case.name for case in CASES} >= SOME


def assert_found(case, model, structure):
    """What was found is what was to be found, and what was not has a reason."""
    found = Counter(places(model, width) for width in structure.widths.values())
    wanted = Counter(case.learned)
    assert wanted <= found, sorted(map(sorted, wanted - found))
    if case.complete:
        assert found <= wanted + Counter(case.allowed), sorted(map(sorted, found - wanted))
    for place, word in case.fixed.items():
        assert not any(place in each for each in found)
        reasons = [each.reason for each in structure.refused if place in each.places]
        assert reasons
        assert any(word in reason.lower() or "looked up" in reason for reason in reasons), reasons


def silent_units_come_and_go(model, inputs, widths):
    """As the proof does, but with other code: two units in all widths at once, which leave no trace."""
    expected, before = say(model, inputs), snapshot(model)
    grown = [Change(width, tuple(range(width.size)), 2) for width in widths]
    operate(grown, initialize=loud(torch.Generator().manual_seed(2)))
    assert_same(say(model, inputs), expected)
    operate([Change(width, tuple(range(width.size - 2)), 0) for width in widths])
    assert_is(model, before)
    assert_same(say(model, inputs), expected, rtol=0)


def learn(model, inputs, optimizer, structure, look=lambda: None):
    """Ten updates; what Adam remembers of a parameter keeps its shape, and every entry is trained on."""
    for _ in range(10):
        optimizer.zero_grad()
        floats = [tensor for tensor in tensors_in(model(*inputs)) if tensor.is_floating_point()]
        sum((tensor.float() ** 2).mean() for tensor in floats).backward()
        optimizer.step()
        structure.step()
        look()
        for parameter in model.parameters():
            assert parameter.grad is None or parameter.grad.shape == parameter.shape
            for key, value in optimizer.state.get(parameter, {}).items():
                assert key == "step" or value.shape == parameter.shape
    assert structure.history.events


def assert_loads_into_the_users_class(case, plain, structure, inputs, said):
    """The user's class, built at the final sizes, takes the state and says the same."""
    known = (*case.learned, *case.allowed)
    if case.rebuild is None or not case.complete or len({*known}) < len(known):
        return
    by_place = {places(plain, width): width.size for width in structure.widths.values()}
    again = case.rebuild({index: by_place[each] for index, each in enumerate(known) if each in by_place})
    again.load_state_dict(plain.state_dict())
    assert_same(say(again, inputs), said, rtol=1e-6)


def exported(model, inputs):
    """The model as `torch.export` has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export itself
        module = torch.export.export(model.eval(), inputs).module()
    module.eval = lambda: module  # it has no modes, and says so by an error
    return module


def assert_tells_the_truth(model):
    """The integers of torch's modules are the sizes of their tensors."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == weight.shape
        elif isinstance(module, nn.modules.conv._ConvNd):
            rows, columns = weight.shape[:2]
            shape = (module.in_channels, module.out_channels // module.groups)
            shape = shape if module.transposed else (module.out_channels, module.in_channels // module.groups)
            assert shape == (rows, columns)
        elif isinstance(module, nn.RNNBase):
            assert module.weight_ih_l0.shape[1] == module.input_size
            assert module.weight_hh_l0.shape[1] == (module.proj_size or module.hidden_size)
        elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            assert weight.shape == (module.num_embeddings, module.embedding_dim)
        elif isinstance(module, nn.modules.batchnorm._NormBase) and weight is not None:
            assert module.num_features == len(weight)
        elif isinstance(module, nn.GroupNorm) and weight is not None:
            assert module.num_channels == len(weight)
            assert module.num_channels % module.num_groups == 0


def test_the_zoo_is_large():
    assert len(CASES) >= 60
    assert sum(bool(case.learned) for case in CASES) >= 50
    assert len({case.name for case in CASES}) == len(CASES)
