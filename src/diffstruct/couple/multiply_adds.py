"""What a model of given sizes costs in multiply-adds.

Every size that a matrix product or a convolution multiplies is a polynomial of the widths' sizes: their sum
behind a concatenation, say, or the product of heads and features a head. A run at the sizes that the model
has, and one with a unit more of each width, and of several where sizes are multiplied, give the polynomials'
coefficients; a run at half of all sizes checks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from diffstruct.couple.counting import Sizes, placed_products_of, products_of
from diffstruct.couple.found import FoundWidths
from diffstruct.couple.proof import Proof
from diffstruct.couple.trials import ProofError
from diffstruct.errors import StructureError
from diffstruct.surgery import Change, plan
from diffstruct.width import Depth

MOST = 4
"""So many sizes may be multiplied in one dimension: of groups, of heads in each, of features in these."""


class MultiplyAdds:
    """The multiply-adds of a model for one example, by the sizes of its widths.

    Counted are matrix products and convolutions of a forward pass in evaluation mode, those of recurrent
    layers and of attention among them, a multiplication and the addition that goes with it as one; attention
    that a mask leaves out counts, as the usual kernels compute it. All else, such as normalisation and
    activation functions, is not counted.

    The batch is the first dimension of the first tensor among the example inputs: by its size the count is
    divided. For a model that takes time first, it is thus what a step takes, of all sequences together.

    Args:
        found: what `find_widths` found in the model with example inputs, on which the model runs once more
            for each width. Afterwards it is as it was, bit for bit.

    Raises:
        StructureError: the widths were found without example inputs, an operator multiplies in a way that is
            not known, or the products do not follow the sizes, as in a model that routes by what it reads.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> found = ds.find_widths(model, (torch.ones(16, 3),))
        >>> count = ds.MultiplyAdds(found)
        >>> count({"0": 8}), count({"0": 7})
        (40.0, 35.0)

        As what units cost:

        >>> criterion = ds.TaylorImportance(cost=ds.MultiplyAdds(found))
    """

    def __init__(self, found: FoundWidths) -> None:
        if found.proof is None:
            raise StructureError(
                "multiply-adds are counted by running the model, and these widths were found without example "
                "inputs: give some, or the cost as a function of the sizes, TaylorImportance(cost=)"
            )
        depths = [width for width in found.widths.values() if isinstance(width, Depth)]
        self._depths = {depth.name: depth.size for depth in depths}
        self._base = {name: w.size for name, w in found.widths.items() if name not in self._depths}
        self.examples = _examples(found.proof)
        self._products: list[tuple[str, ...]] = []
        """Widths of which the product of sizes counts: of two of them, or of more."""
        self._sizes: NDArray[np.float64]
        """The coefficients of every size that is multiplied and changes, by what `_features` gives."""
        self._terms: list[tuple[int, tuple[int, ...], str | None]]
        """Products: what does not change of them, the indices of the sizes that do, and the depth in whose
        blocks they are made: of fewer or more blocks, the average counts."""
        self._fit(found, {block: depth.name for depth in depths for block in depth.blocks})
        half = {name: max(1, size // 2) for name, size in self._base.items()}
        if self._total(half) != sum(map(prod, _products(found, half))):
            raise _untold("they do not follow the sizes of the widths")

    def __call__(self, sizes: Mapping[str, int]) -> float:
        """The multiply-adds at these sizes; widths that are left out have the size that they had."""
        return self._total(sizes) / self.examples

    def _total(self, sizes: Mapping[str, int]) -> float:
        """The multiply-adds of all examples."""
        values = (self._sizes @ self._features(sizes)).tolist()
        parts = {name: sizes.get(name, base) / base for name, base in self._depths.items()}
        return float(
            sum(
                fixed * prod(values[index] for index in indices) * (1.0 if depth is None else parts[depth])
                for fixed, indices, depth in self._terms
            )
        )

    def _features(self, sizes: Mapping[str, int]) -> NDArray[np.float64]:
        """One, how many units more each width has, and products of such numbers."""
        more = {name: sizes.get(name, base) - base for name, base in self._base.items()}
        products = (prod(more[name] for name in names) for names in self._products)
        return np.array([1, *more.values(), *products], np.float64)

    def _fit(self, found: FoundWidths, blocks: Mapping[nn.Module, str]) -> None:
        """Run the model at a few sizes, and keep what that shows."""
        base = self._base
        assert found.proof is not None
        depths = [depth for _, depth in placed_products_of(found.proof.outputs, blocks)]

        def more(*names: str) -> NDArray[np.int64]:
            return _flat(_products(found, {name: base[name] + 1 for name in names}), shapes)

        products = _products(found, {})
        shapes = [len(each) for each in products]
        flat = _flat(products, shapes)
        known: dict[tuple[str, ...], NDArray[np.int64]] = {(): flat}

        def unknown(*names: str) -> NDArray[np.int64]:
            """What a unit more of all of these adds beyond what is known of fewer of them."""
            return more(*names) - sum(each for some, each in known.items() if {*some} <= {*names})

        for name in base:
            known[(name,)] = more(name) - flat
        moved = np.array([known[(name,)] != 0 for name in base]).reshape(len(base), len(flat))
        names = np.array([*base])
        for together in range(2, MOST + 1):
            wrong = {tuple(names[moved[:, entry]].tolist()) for entry in unknown(*base).nonzero()[0]}
            subsets = {some for several in wrong for some in combinations(several, together)}
            found_now = {some: unknown(*some) for some in sorted(subsets)}
            known |= found_now
            self._products += found_now
            if not wrong:
                break
        self._keep(np.stack([*known.values()], 1), shapes, depths)

    def _keep(
        self, coefficients: NDArray[np.int64], shapes: Iterable[int], depths: Iterable[str | None]
    ) -> None:
        """Put together what is the same: the steps of a recurrent layer are, and many layers of a network."""
        rows: dict[tuple[int, ...], int] = {}
        terms: dict[tuple[tuple[int, ...], str | None], int] = {}
        entries = iter(map(tuple, coefficients.tolist()))
        for length, depth in zip(shapes, depths, strict=True):
            own = [next(entries) for _ in range(length)]
            fixed = prod(entry[0] for entry in own if not any(entry[1:]))
            changing = sorted(rows.setdefault(entry, len(rows)) for entry in own if any(entry[1:]))
            key = tuple(changing), depth
            terms[key] = terms.get(key, 0) + fixed
        self._sizes = np.array([*rows], np.float64).reshape(len(rows), coefficients.shape[1])
        self._terms = [(fixed, *key) for key, fixed in terms.items()]


def _products(found: FoundWidths, sizes: Mapping[str, int]) -> list[Sizes]:
    """The products that the model is made of where some widths have other sizes, by surgery that is undone.

    Raises:
        StructureError: the model does not run at these sizes.
    """
    proof, changes = found.proof, []
    assert proof is not None
    for name, size in sizes.items():
        width = found.widths[name]
        changes.append(Change(width, tuple(range(min(size, width.size))), max(0, size - width.size)))
    with ExitStack() as undo:
        undo.callback(plan(changes).commit())
        try:
            return products_of(proof.outputs)
        except ProofError as error:
            raise _untold(str(error)) from error


def _flat(products: list[Sizes], shapes: list[int]) -> NDArray[np.int64]:
    """All sizes in a row.

    Raises:
        StructureError: the products are not those that were seen before.
    """
    if [len(each) for each in products] != shapes:
        raise _untold("the model takes another way when a width has another size")
    return np.array([size for each in products for size in each], np.int64)


def _examples(proof: Proof) -> int:
    """How many examples the example inputs are."""
    for leaf in tree_leaves((proof.run.args, proof.run.keywords)):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return max(1, leaf.shape[0])
    return 1


def _untold(why: str) -> StructureError:
    return StructureError(
        f"the multiply-adds at other sizes cannot be found by running the model: {why}; give the cost as a "
        "function of the sizes, TaylorImportance(cost=)"
    )
