"""The widths of any model: traced, then proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from diffstruct.control import chosen
from diffstruct.couple.proof import Proof, Unproved, undisturbed
from diffstruct.couple.trace import Findings, trace
from diffstruct.couple.widths import Refusal, widths_of
from diffstruct.errors import StructureError
from diffstruct.width import Width


def traced_widths(
    model: nn.Module,
    example_inputs: Sequence[Any] | Mapping[str, Any],
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> tuple[dict[str, Width], list[Refusal], Proof]:
    """The widths of `model` that surgery proves, by name; the axes that are none; and what proved it.

    Args:
        model: any module; afterwards it is as it was, bit for bit.
        example_inputs: its positional arguments, or its keyword arguments, such as it is trained on.
        include: patterns of the names of widths to learn.
        exclude: patterns of those among them to leave as they are.

    Raises:
        StructureError: the model does not run on the example inputs, or returns no tensor.
    """
    run = _runner(model, example_inputs)
    findings = Findings()
    trains = any(module.training for module in model.modules())
    for training in (False, True) if trains else (False,):
        with undisturbed(model, training):
            try:
                trace(model, run, example_inputs, findings)
            except Exception as error:
                mode = "training" if training else "evaluation"
                raise StructureError(
                    f"{type(model).__name__} does not run in {mode} mode on the example inputs: {error}; "
                    "give inputs such as it is trained on"
                ) from error
    found = widths_of(model, findings)
    proof = Proof(model, run, trains)
    widths: dict[str, Width] = {}
    for name, width in found.widths.items():
        if not chosen(name, include, exclude):
            found.refuse(name, "is excluded by name")
            continue
        try:
            widths[name] = proof.prove(width, found.candidates[name])
        except Unproved as error:
            found.refuse(name, str(error))
    _prove_together(proof, widths, found.refuse)
    return widths, found.refused, proof


def _runner(model: nn.Module, inputs: Sequence[Any] | Mapping[str, Any]) -> Callable[[], Any]:
    if isinstance(inputs, Mapping):
        return lambda: model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return lambda: model(*inputs)
    raise StructureError(
        f"example_inputs must be a tuple of positional arguments or a dict of keyword arguments, got a "
        f"{type(inputs).__name__}: write example_inputs=(x,) for one tensor"
    )


def _prove_together(proof: Proof, widths: dict[str, Width], refuse: Callable[[str, str], None]) -> None:
    """Drop the widths that hold alone but not beside the others; none, for all that we know."""
    try:
        proof.together(widths.values())
    except Unproved:
        held: list[str] = []
        for name in [*widths]:
            try:
                proof.together([widths[other] for other in (*held, name)])
                held.append(name)
            except Unproved as error:
                refuse(name, f"together with {', '.join(held)}: {error}")
                del widths[name]
