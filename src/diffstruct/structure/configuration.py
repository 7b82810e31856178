"""The final sizes, written into the configuration that a model is built from, as far as that can say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from diffstruct.couple import Proof, ProofError
from diffstruct.interrupts import allowed
from diffstruct.nn.outputs import tensors_in
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.structure.fit import Fit, Values
from diffstruct.structure.rebuilding import is_configuration
from diffstruct.structure.shapes import tensors_of
from diffstruct.width import Depth, Width


def write_sizes(
    model: nn.Module, widths: Mapping[str, Width], proof: Proof | None, copies: Sequence[nn.Module] = ()
) -> str | None:
    """Write the sizes of widths into `model.config`, and into those of copies of the model.

    What is written is proved: the model's class, built from it, comes to the same shapes and, if the
    configuration can say all sizes, to the same function of the tensors. A model without a configuration, one
    whose class cannot be built from it alone, and one whose widths were found without example inputs are left
    alone.

    Returns:
        What the user should know: which sizes the configuration cannot say.
    """
    config = getattr(model, "config", None)
    if proof is None or proof.model is not model or not is_configuration(config):
        return None
    if not {slot.module for width in widths.values() for slot in width.slots} <= {*model.modules()}:
        return None  # layers of ours have become those of torch.nn, which its class does not build
    widths = {name: width for name, width in widths.items() if not isinstance(width, Depth)}
    if not widths:  # the number of blocks is written as soon as it changes
        return None
    fit = Fit(model, widths)
    if fit.written is None or not fit.wrong({}):
        return None
    expected = _outputs(proof)
    values = fit.search(strict=True) if expected is None else _proved(fit, proof, expected)
    with ExitStack() as undo:
        for target in {id(each): each for each in (config, *(copy.config for copy in copies))}.values():
            for key, value in values.items():
                undo.callback(key.put, target, key.of(target))
                key.put(target, value)
        try:
            if expected is not None:
                proof.same(proof.outputs(), expected, "the model reads its configuration while it runs")
            undo.pop_all()
        except ProofError:
            values = {}
    return _remark(fit, values) if fit.wrong(values) else None


def _outputs(proof: Proof) -> list[Tensor] | None:
    """What the model gives for the example inputs; None if it has been moved to where these are not."""
    try:
        return proof.outputs()
    except ProofError:
        return None


def _proved(fit: Fit, proof: Proof, expected: list[Tensor]) -> Values:
    """The values to write: of all sizes, if that gives the same function; else of what is beyond doubt."""
    strict = fit.search(strict=True)
    if not fit.wrong(strict):
        return strict if _same_function(fit.rebuilt(strict), proof, expected) else {}
    values = fit.search(strict=False)
    whole = not fit.wrong(values) and _same_function(fit.rebuilt(values), proof, expected)
    return values if whole else strict


def _same_function(rebuilt: nn.Module | None, proof: Proof, expected: list[Tensor]) -> bool:
    """Whether a model that was built anew, with the tensors of the one of the proof, gives its outputs."""
    tensors = {key: tensor for key, _, _, tensor in tensors_of(proof.model)}
    try:
        assert rebuilt is not None
        with undisturbed(proof.model), torch.enable_grad(), allowed():
            found = functional_call(rebuilt.eval(), tensors, proof.run.args, proof.run.keywords)
        proof.same([tensor.detach() for tensor in tensors_in(found)], expected, "another function")
    except Exception:  # whatever the user's code raises where it is not the same
        return False
    return True


def _remark(fit: Fit, values: Values) -> str:
    """Which sizes the configuration does not say, and what to do."""
    wrong = fit.wrong(values)
    unsaid = {name: width.size for name, width in fit.widths.items() if fit.entries(name) & wrong}
    apart = "; ".join(f"{key} is {_listed(each)}" for key, each in fit.apart(unsaid))
    return (
        f"{type(fit.model.config).__name__} cannot say these sizes: {_listed(unsaid)}. "
        + (f"Layers differ ({apart}): tie them with Structure(tie=...). " if apart else "")
        + "A model that is built from the configuration takes them by ds.resize_to(model, state_dict, "
        "example_inputs); Structure(exclude=...) leaves them as they are"
    )


def _listed(sizes: Mapping[str, int]) -> str:
    shown = ", ".join(f"{size} in {name}" for name, size in sorted(sizes.items())[:6])
    return shown + (f" and {len(sizes) - 6} more" if len(sizes) > 6 else "")
