"""The Python integers that hold a size: which module's attribute is the size of what.

`torch.nn`'s own modules are known by a table. What a user's module keeps (`self.num_heads`, `self.inner`) is
not; `candidates` lists the integers that could be meant, for `proof` to try.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from diffstruct.couple.findings import Findings, Place
from diffstruct.couple.layouts import layout_of
from diffstruct.couple.terms import Leaf, Term, find, leaves, product_of
from diffstruct.couple.tree import Tree
from diffstruct.width.follows import Attribute, WhileEven
from diffstruct.width.layout import Axis, Product, Sum
from diffstruct.width.width import Width

# For each class the attribute, and the tensor and dimension whose size it is.
_TABLE: tuple[tuple[type[nn.Module], str, str, int], ...] = (
    (nn.Linear, "in_features", "weight", 1),
    (nn.Linear, "out_features", "weight", 0),
    (nn.Bilinear, "out_features", "weight", 0),
    (nn.Bilinear, "in1_features", "weight", 1),
    (nn.Bilinear, "in2_features", "weight", 2),
    (nn.Embedding, "embedding_dim", "weight", 1),
    (nn.EmbeddingBag, "embedding_dim", "weight", 1),
    (nn.PReLU, "num_parameters", "weight", 0),
    (nn.GroupNorm, "num_channels", "weight", 0),
    (nn.modules.batchnorm._NormBase, "num_features", "weight", 0),
    (nn.modules.batchnorm._NormBase, "num_features", "running_mean", 0),
    (nn.RNNBase, "hidden_size", "weight_hh_l0", 1),
    (nn.RNNBase, "input_size", "weight_ih_l0", 1),
    (nn.RNNCellBase, "hidden_size", "weight_hh", 1),
    (nn.RNNCellBase, "input_size", "weight_ih", 1),
)
_CHANNELS = {nn.GroupNorm: "num_channels", nn.modules.batchnorm._NormBase: "num_features"}
_GROUPS = {nn.GroupNorm: "num_groups", nn.modules.conv._ConvNd: "groups"}


def known_attributes(
    model: nn.Module, findings: Findings, axes: Mapping[Leaf, Axis]
) -> dict[Leaf, list[Attribute]]:
    """The attributes of `torch.nn`'s modules that change with each axis."""
    found: dict[Leaf, list[Attribute]] = {}
    seen: set[tuple[nn.Module, str, Leaf]] = set()
    for attribute, term in _known(model, findings, axes):
        for leaf in leaves(term):
            if (attribute.module, attribute.name, leaf) not in seen:
                seen.add((attribute.module, attribute.name, leaf))
                found.setdefault(leaf, []).append(attribute)
    return found


def _known(
    model: nn.Module, findings: Findings, axes: Mapping[Leaf, Axis]
) -> Iterator[tuple[Attribute, Term]]:
    """The attributes of `torch.nn`'s modules, each with the term whose size it is."""
    for module in model.modules():
        for name, term in _sizes(module, findings):
            if getattr(module, name) == term.size:
                yield Attribute(module, name, layout_of(term, axes)), term
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1:
            gain = _term(module, "weight", 0, findings)
            if gain is not None:
                yield Attribute(module, "normalized_shape", layout_of(gain, axes), 0), gain
        if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            for heads, _ in (findings.attention[m] for m in module.modules() if m in findings.attention):
                yield WhileEven(module, "use_nested_tensor", layout_of(heads, axes)), heads


def _sizes(module: nn.Module, findings: Findings) -> Iterator[tuple[str, Term]]:
    """The attributes of a module of `torch.nn` that hold a size, each with the axis whose size it is."""
    for kind, attribute, tensor, dim in _TABLE:
        if isinstance(module, kind):
            term = _term(module, tensor, dim, findings)
            if term is not None:
                yield attribute, term
    for kind, attribute in _CHANNELS.items():  # such as have no weights
        if isinstance(module, kind) and module in findings.entered:
            yield attribute, findings.entered[module].term
    if isinstance(module, nn.MultiheadAttention) and module in findings.attention:
        heads, width = findings.attention[module]
        inner = product_of([heads, width])
        yield from (("embed_dim", inner), ("num_heads", heads), ("head_dim", width))
        for name, own in (("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
            term = inner if module._qkv_same_embed_dim else _term(module, own, 1, findings)
            if term is not None:
                yield name, term
    groups = findings.groups.get(module)
    for kind, attribute in _GROUPS.items():
        if isinstance(module, kind) and groups is not None:
            yield attribute, groups
    if isinstance(module, nn.modules.conv._ConvNd):
        first, second = (_term(module, "weight", dim, findings) for dim in (0, 1))
        if first is not None and second is not None:
            inner = second if groups is None else product_of([groups, second])
            names = ("out_channels", "in_channels")
            yield from zip(names[::-1] if module.transposed else names, (first, inner), strict=True)


def _term(module: nn.Module, tensor: str, dim: int, findings: Findings) -> Term | None:
    """What a dimension of a module's tensor is; under a parametrization, of the tensor behind it."""
    places = [Place(module, tensor, dim)]
    if nn.utils.parametrize.is_parametrized(module, tensor):
        raw = module.get_submodule(f"parametrizations.{tensor}")
        places += [Place(raw, name, dim) for name in ("original1", "original")]
    return next((findings.places[place] for place in places if place in findings.places), None)


HINT = re.compile(
    "head|hidden|dim|size|width|channel|feature|emb|inner|unit|filter|plane|split|group|nf|nx|rank"
)

_COUNT = re.compile("(heads|groups|num_?head|n_?head)$")


def parts_of(term: Term) -> Iterator[Term]:
    """The term, and every term that it is made of."""
    term = find(term)
    yield term
    if isinstance(term, Sum):
        for part in term.parts:
            yield from parts_of(part)
    elif isinstance(term, Product):
        for start in range(len(term.factors)):
            for stop in range(start + 1, len(term.factors) + 1):
                if stop - start < len(term.factors):
                    yield from parts_of(product_of(term.factors[start:stop]))


class Candidate(NamedTuple):
    """An integer that may hold a size.

    Args:
        attribute: the integer, and what it would hold the size of.
        likely: whether its name says that it holds a size, and nothing else there is as large; or that it
            counts heads or groups, which these units are.
        kind: its path without numbers: modules of repeated layers use such integers alike.
        term: what the integer would hold the size of.
    """

    attribute: Attribute
    likely: bool
    kind: str
    term: Term


def candidates(
    tree: Tree, width: Width, leaf: Leaf, findings: Findings, axes: Mapping[Leaf, Axis]
) -> list[Candidate]:
    """The integers that may hold a size that changes with `leaf`, other than those of `torch.nn`'s modules.

    They are those of the modules that have the width's tensors and of the modules that contain these, equal
    to the size of some dimension of the width, or of a part of it.
    """
    counted = {each for term in (*findings.heads, *findings.groups.values()) for each in leaves(term)}
    owners = {slot.module for slot in width.slots}
    with_leaf: dict[nn.Module, dict[int, Term]] = {module: {} for module in owners}
    others: set[int] = set()
    terms: dict[nn.Module, list[Term]] = {}
    for place, term in findings.places.items():
        terms.setdefault(place.module, []).append(term)
        if place.module in owners:
            for part in parts_of(term):
                if leaf in leaves(part):
                    with_leaf[place.module].setdefault(part.size, part)
                else:
                    others.add(part.size)

    def doubtful(module: nn.Module, value: int) -> bool:
        """Whether anything else is as large in a module, such as a vocabulary."""
        if value in others:
            return True
        inside = (term for inner in module.modules() for term in terms.get(inner, ()))
        return any(part.size == value and leaf not in leaves(part) for t in inside for part in parts_of(t))

    found = []
    for module in tree.around(owners):
        settled = {name for name, _ in _sizes(module, findings)}
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            settled.add("normalized_shape")
        own = [each for each in integers(module) if each[0] not in settled]
        by_size: dict[int, Term] = {}
        for inner in module.modules() if own else ():  # another layer's sizes may be made of other axes
            for size, part in with_leaf.get(inner, {}).items():
                by_size.setdefault(size, part)
        for name, index, value in own:
            if value in by_size:
                attribute = Attribute(module, name, layout_of(by_size[value], axes), index)
                if _COUNT.search(name.lower()):
                    likely = leaf in counted
                else:
                    likely = bool(HINT.search(name.lower())) and not doubtful(module, value)
                kind = re.sub(r"\d+", "#", f"{tree.names[module][0]}.{name}.{index}")
                found.append(Candidate(attribute, likely, kind, by_size[value]))
    return found


def integers(holder: object) -> Iterator[tuple[str, int | None, int]]:
    """The integers among an object's attributes, also within tuples and lists: name, index, value."""
    for name, value in vars(holder).items():
        if name.startswith("_"):
            continue
        if isinstance(value, (tuple, list)):
            entries: list[tuple[int | None, Any]] = [*enumerate(value)]
        else:
            entries = [(None, value)]
        for index, entry in entries:
            if isinstance(entry, int) and not isinstance(entry, bool):
                yield name, index, entry
