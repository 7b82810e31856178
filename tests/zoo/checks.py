"""What holds for every model before, while and after its structure is learned."""

import warnings

import torch
from torch import nn

import diffstruct as ds
from diffstruct.nn.outputs import tensors_in
from diffstruct.surgery import Change, operate
from diffstruct.width.layout import owners

READERS = (ds.Role.OUTGOING, ds.Role.RECURRENT)


def snapshot(model):
    """All that a model has, to the bit."""
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return tensors, repr(model), [module.training for module in model.modules()]


def assert_unchanged(model, before, rescaled=()):
    """To the bit, but for gains, whose ids are `rescaled`: those are equal to rounding."""
    tensors, shown, modes = before
    assert repr(model) == shown
    assert [module.training for module in model.modules()] == modes
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in rescaled:
            torch.testing.assert_close(tensor.detach(), tensors[name], rtol=1e-6, atol=0)
        else:
            assert torch.equal(tensor, tensors[name]), name


def outputs_of(model, inputs):
    """The outputs of a model in evaluation mode, with the same random numbers each time."""
    modes = {module: module.training for module in model.modules()}
    torch.manual_seed(1)
    with torch.no_grad():
        outputs = [tensor.clone() for tensor in tensors_in(model.eval()(*inputs))]
    for module, mode in modes.items():
        module.training = mode
    return outputs


def assert_same(found, expected, rtol=1e-4):
    for mine, right in zip(found, expected, strict=True):
        scale = right.abs().max().item() if right.is_floating_point() else 0
        torch.testing.assert_close(mine, right, rtol=rtol, atol=rtol * scale)


def assert_finite(outputs):
    assert all(tensor.isfinite().all() for tensor in outputs if tensor.is_floating_point())


def silent_units(generator):
    """An initialisation that makes all entries of new units random, but their outgoing weights zero.

    Where LayerNorm averages over units, what writes new ones is the mean of what writes the others; where
    RMSNorm does, zero, and so is the bias of a norm whose result is not the stream itself.
    """

    def write(changes, values):
        sizes = {change.width.axis: change.new_size for change in changes}
        for reading in (False, True):
            for change in changes:
                for slot in change.width.slots:
                    if reading == (slot.role in READERS):
                        new = owners(slot.layout, change.width.axis, sizes) >= change.size
                        value = values[slot.tensor]
                        entries = value.movedim(slot.dim, 0)[new]
                        noise = torch.rand(entries.shape, generator=generator) + 0.5
                        value.movedim(slot.dim, 0)[new] = (noise * (not reading)).to(value)
        for change in changes:
            normalisation = change.width.normalisation
            gains = {(each.module, each.name) for each in change.width.rescaled}
            for slot in change.width.slots if normalisation is not None else ():
                place = slot.module, slot.name
                if (*place, slot.dim) in normalisation.inside or place in gains:
                    continue
                if slot.role not in READERS or slot.feeds:
                    axes = [(each.width.axis, each.size) for each in changes]  # also those of other widths
                    new = torch.stack([owners(slot.layout, axis, sizes) >= size for axis, size in axes]).any(
                        0
                    )
                    entries = values[slot.tensor].movedim(slot.dim, 0)
                    norms = {module for module, _ in gains}
                    bias = slot.module in norms and entries.ndim == 1 and not normalisation.returns
                    entries[new] = entries[~new].mean(0) if normalisation.centred and not bias else 0.0

    return write


def silent_units_come_and_go(model, inputs, widths, rtol=1e-4):
    """As the proof does, but with other code: two units in all widths at once, which change no output."""
    widths = [*widths]
    expected, before = outputs_of(model, inputs), snapshot(model)
    gains = {id(getattr(each.module, each.name)) for width in widths for each in width.rescaled}
    grown = [Change(width, tuple(range(width.size)), 2) for width in widths]
    operate(grown, initialize=silent_units(torch.Generator().manual_seed(2)))
    assert_same(outputs_of(model, inputs), expected, rtol)
    operate([Change(width, tuple(range(width.size - 2)), 0) for width in widths])
    assert_unchanged(model, before, gains)
    assert_same(outputs_of(model, inputs), expected, rtol=1e-6 if gains else 0)


def learn(model, inputs, optimizer, structure, steps=10, check=lambda: None):
    """Train the outputs towards zero; optimizer state keeps the shapes of the parameters."""
    for _ in range(steps):
        optimizer.zero_grad()
        floats = [tensor for tensor in tensors_in(model(*inputs)) if tensor.is_floating_point()]
        sum((tensor.float() ** 2).mean() for tensor in floats).backward()
        optimizer.step()
        structure.step()
        check()
        for parameter in model.parameters():
            assert parameter.grad is None or parameter.grad.shape == parameter.shape
            for key, value in optimizer.state.get(parameter, {}).items():
                assert key == "step" or value.shape == parameter.shape


def assert_sizes_hold(model):
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


def exported(model, inputs):
    """The model as `torch.export` has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export itself
        module = torch.export.export(model.eval(), inputs).module()
    module.eval = lambda: module  # it has no modes, and raises an error
    return module
