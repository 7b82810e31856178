"""The widths of any model: traced, then proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from torch import nn

from diffstruct.couple.proof import Proof, Unproved, undisturbed
from diffstruct.couple.terms import unify
from diffstruct.couple.trace import Findings, trace
from diffstruct.couple.widths import Found, Refusal, widths_of
from diffstruct.errors import StructureError
from diffstruct.width.patterns import chosen
from diffstruct.width.width import Width


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
    proof = Proof(model, run, trains)
    found = widths_of(model, findings)
    widths, failed = _proved(found, proof, include, exclude)
    if _merge(found, failed):
        found = widths_of(model, findings)
        widths, _ = _proved(found, proof, include, exclude)
    _prove_together(proof, widths, found.refuse)
    return widths, found.refused, proof


def _proved(
    found: Found, proof: Proof, include: Sequence[str], exclude: Sequence[str]
) -> tuple[dict[str, Width], list[str]]:
    """Those of the widths that are wanted and proved, and the names of those that are not."""
    widths: dict[str, Width] = {}
    failed = []
    for name, width in found.widths.items():
        if not chosen(name, include, exclude):
            found.refuse(name, "is excluded by name")
            continue
        try:
            widths[name] = proof.prove(width, found.candidates[name])
        except Unproved as error:
            failed.append(name)
            found.refuse(name, str(error))
    return widths, failed


def _merge(found: Found, failed: Sequence[str]) -> bool:
    """Take for one axis those that fail alone, are as large, and hang together; whether there are any.

    What hangs together lies in one dimension (halves of `chunk`) or is named by one integer (heads of queries
    and of values): the model's code then wants both to have the same size, which no operator shows.
    """
    merged = False
    for one, other in combinations(failed, 2):
        first, second = found.widths[one], found.widths[other]
        together = {(slot.module, slot.name, slot.dim) for slot in first.slots} & {
            (slot.module, slot.name, slot.dim) for slot in second.slots
        }
        named = {(each.attribute.module, each.attribute.name) for each in found.candidates[one]} & {
            (each.attribute.module, each.attribute.name) for each in found.candidates[other]
        }
        if first.size == second.size and (together or named):
            unify(found.leaves[one], found.leaves[other], "must be as large as another axis")
            merged = True
    return merged


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
