"""The widths of a model: those that its modules declare, or those that are traced and proved."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import nn

from diffstruct.couple.declared import declared_widths
from diffstruct.couple.findings import Findings
from diffstruct.couple.found import FoundWidths
from diffstruct.couple.merging import merge, merge_streams
from diffstruct.couple.normalised import why_none_is_silent
from diffstruct.couple.proof import Proof
from diffstruct.couple.tie import tie_widths
from diffstruct.couple.trace import trace
from diffstruct.couple.trials import ChangesOutputError, ProofError
from diffstruct.couple.widths import TracedWidths, widths_of
from diffstruct.distributed import following, unwrapped
from diffstruct.errors import StructureError, StructureWarning
from diffstruct.interrupts import uninterrupted
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.width import Width
from diffstruct.width.patterns import check_patterns, chosen

EXCLUDED = "is excluded by name"

_Scope: TypeAlias = tuple[Sequence[str], Sequence[str]]
"""Which widths are tried: those included by name, and which of these not."""

_ALL: _Scope = (("*",), ())


@uninterrupted
def find_widths(
    model: nn.Module,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    tie: Sequence[str] = (),
) -> FoundWidths:
    """Find the sizes of a model that can be learned, and say why the others cannot.

    Args:
        model: any module, also a compiled one, or one in a `DistributedDataParallel`; afterwards it is as it
            was, bit for bit.
        example_inputs: its positional arguments, as a tuple, or its keyword arguments, as a dict, such as it
            is trained on: the model runs on them a few times. None: the widths are those that layers of
            `diffstruct.nn` declare, and the model is not run.
        include: patterns of the names of widths to learn.
        exclude: patterns of those among them to leave as they are.
        tie: patterns of widths that are to be one: all that a pattern matches become a single width of the
            pattern's name, so that layers stay equally large, as most configurations want them. They need
            the same size now, and their units go together, the first of each, the second of each.

    Raises:
        StructureError: the model does not run on the example inputs, or returns no tensor; without example
            inputs, no module declares a width.
        ConfigurationError: a pattern matches the name of no width, or widths cannot be tied.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> found = ds.find_widths(model, (torch.ones(16, 3),))
        >>> found.widths
        {'0': Width('0', size=8, slots=3)}
        >>> print(found)
        width  units  places
        0      8      0.weight[dim 0], 0.bias[dim 0], 2.weight[dim 1]
        <BLANKLINE>
        not learned:
        0.weight[1] (3): is a dimension of the input
    """
    model, _ = unwrapped(model)
    if example_inputs is None:
        found = FoundWidths(model, declared_widths(model), [], None)
        _check_names([*found.widths], include, exclude)
        for name in [*found.widths]:
            if not chosen(name, include, exclude):
                found.refuse(name, EXCLUDED)
        tie_widths(found, tie)
        return found
    with following(model):  # trials renew the accumulators of gradients
        return _tried(model, example_inputs, include, exclude, tie)


def _tried(
    model: nn.Module,
    example_inputs: Sequence[Any] | Mapping[str, Any],
    include: Sequence[str],
    exclude: Sequence[str],
    tie: Sequence[str],
) -> FoundWidths:
    """The widths that come out of a trace, and stand their trials; see `find_widths`."""
    run = runner(model, example_inputs)
    trains = any(module.training for module in model.modules())
    findings = _traced(model, run, example_inputs, trains)
    proof = Proof(model, run, trains, findings)
    traced = widths_of(model, findings)
    scope: _Scope = include, exclude
    found, misfits = _proved(traced, proof, findings, scope)
    if misfits and not all(chosen(name, *scope) for name in traced.widths):
        scope = _ALL  # they may hang together with what nobody wants
        found, misfits = _proved(traced, proof, findings, scope)
    depths = {name.count(".") for name, _ in model.named_modules()}
    for depth in sorted(depths, reverse=True):
        if merge(traced, misfits, model, depth, tie):
            traced = widths_of(model, findings)
            found, misfits = _proved(traced, proof, findings, scope)
    if merge_streams(traced, misfits, findings):
        traced = widths_of(model, findings)
        found, misfits = _proved(traced, proof, findings, scope)
    for name in [*found.widths]:
        if not chosen(name, include, exclude):
            found.refuse(name, EXCLUDED)
    _check_names([*traced.widths], include, exclude)
    with proof.all_heard():
        tie_widths(found, tie)
        _prove_together(found)
    return found


def runner(model: nn.Module, inputs: Sequence[Any] | Mapping[str, Any]) -> partial[Any]:
    """The model with example inputs as its arguments.

    Raises:
        StructureError: they are neither a tuple nor a dict.
    """
    if isinstance(inputs, Mapping):
        return partial(model, **inputs)
    if isinstance(inputs, (tuple, list)):
        return partial(model, *inputs)
    raise StructureError(
        f"example_inputs must be a tuple of positional arguments or a dict of keyword arguments, got a "
        f"{type(inputs).__name__}: write example_inputs=(x,) for one tensor"
    )


def _traced(model: nn.Module, run: partial[Any], inputs: Any, trains: bool) -> Findings:
    """What a run in evaluation mode shows and, if the model has modules in training mode, one in that."""
    findings = Findings()
    for training in (False, True) if trains else (False,):
        with undisturbed(model, training):
            try:
                trace(model, run, inputs, findings)
            except Exception as error:
                mode = "training" if training else "evaluation"
                raise StructureError(
                    f"{type(model).__name__} does not run in {mode} mode on the example inputs: {error}; "
                    "give inputs such as it is trained on"
                ) from error
    for name, failure in findings.failed_rules.items():
        warnings.warn(
            f"diffstruct's rule for the operator {name} failed ({failure}), so that no size that goes "
            "through it is learned: please report this",
            StructureWarning,
            stacklevel=3,
        )
    return findings


def _proved(
    traced: TracedWidths, proof: Proof, findings: Findings, scope: _Scope
) -> tuple[FoundWidths, list[str]]:
    """Those of the widths that are wanted and proved; the names of those with which the model does not run.

    All others are refused.
    """
    found = FoundWidths(proof.model, dict(traced.widths), [*traced.refused], proof)
    misfits = []
    wanted = {name: each for name, each in traced.variants.items() if chosen(name, *scope)}
    with proof.all_heard():
        proof.sharpen(traced.variants.values())
        proved = proof.prove_all(wanted, traced.candidates)
    for name in traced.widths:
        result = proved.get(name)
        if result is None:
            found.refuse(name, EXCLUDED)
        elif isinstance(result, ProofError):
            why = why_none_is_silent(traced.leaves[name], findings)
            if not isinstance(result, ChangesOutputError):
                misfits.append(name)
                why = None
            tied = _tied(traced.widths[name], proof.model) if why is not None else ""
            found.refuse(name, str(result) if why is None else f"{result}: {why}{tied}")
        else:
            found.widths[name] = result
    return found, misfits


def _tied(width: Width, model: nn.Module) -> str:
    """What can be done if it is a shared parameter that joins what cannot be learned to what could be."""
    names = {module: name for name, module in model.named_modules()}
    places: dict[int, dict[str, None]] = {}
    for slot in width.slots:
        places.setdefault(id(slot.tensor), {}).setdefault(f"{names[slot.module]}.{slot.name}".lstrip("."))
    shared = next((each for each in places.values() if len(each) > 1), None)
    return "" if shared is None else f"; untied, {' and '.join(shared)} would be of widths of their own"


def _check_names(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> None:
    check_patterns(include, names, "include")
    check_patterns(exclude, names, "exclude")


def _prove_together(found: FoundWidths) -> None:
    """Refuse the widths that are proved alone but not beside the others; most often there are none."""
    proof = found.proof
    assert proof is not None
    try:
        proof.together(found.widths.values())
    except ProofError:
        held: list[str] = []
        for name in [*found.widths]:
            try:
                proof.together([found.widths[other] for other in (*held, name)])
                held.append(name)
            except ProofError as error:
                found.refuse(name, f"together with {', '.join(held)}: {error}")
