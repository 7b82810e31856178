"""Which weights of a residual block are used last in each of its branches, by autograd's graph.

The walk begins at the block's output and goes back. Where several things are added up it follows all of
them; where weights of the block meet what was computed before, it takes these weights and stops. With them
at zero the branch is silent, whatever is in front of them: a bias and a matrix, the gain and the bias of a
BatchNorm, a layer scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

_SUMS = ("Add", "Sub", "Rsub", "Cat", "Stack", "IndexAdd", "IndexPut", "ScatterAdd", "Where", "CopySlices")
"""How the names of operators begin that are zero if all that goes into them is."""

_PRODUCTS = ("Addmm", "Addbmm", "Addmv", "Addcmul", "Addcdiv", "Addr")
"""Those that begin alike, and multiply."""

OTHER, OWN, BOTH = "other", "own", "both"


class Walk(NamedTuple):
    """What the walk has found.

    Args:
        last: the names of the weights that are used last in each branch.
        all: the names of all weights that take part.
        skips: whether the input is among what is added up.
    """

    last: tuple[str, ...]
    all: frozenset[str]
    skips: bool


def walk(output: Tensor, begin: Any, own: Mapping[int, str]) -> Walk:
    """Go back from the output of a block.

    Args:
        output: of the block.
        begin: the node of autograd's graph that the input of the block comes from.
        own: the names of the block's parameters, by their ids.
    """
    end = output.grad_fn
    if end is None:
        return Walk((), frozenset(), False)
    kinds = _kinds(end, begin, own)
    last: dict[str, None] = {}
    seen: set[Any] = set()
    waiting: list[Any] = [end]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if kinds[node] == OWN:
            last.update((own[key], None) for key in _leaves(node, begin) if key in own)
            continue
        inputs = [*_inputs(node, begin)]
        if kinds[node] == OTHER:  # the input itself, if it is not multiplied by anything
            waiting += inputs if _adds(node) or len(inputs) == 1 else ()
            continue
        direct = [each for each in inputs if kinds[each] == OWN]
        others = [each for each in inputs if kinds[each] != OWN]
        waiting += direct
        if _adds(node):
            waiting += others
        elif not direct:  # of a product one factor, such as the values of attention
            waiting += [each for each in others if kinds[each] == BOTH][-1:]
    taking_part = frozenset(own[key] for key in _leaves(end, begin) if key in own)
    return Walk((*last,), taking_part, begin in seen)


def _adds(node: Any) -> bool:
    name = node.name()
    return name.startswith(_SUMS) and not name.startswith(_PRODUCTS)


def _inputs(node: Any, begin: Any) -> Iterator[Any]:
    """What goes into a node, none into the one that the walk ends at."""
    return (each for each, _ in node.next_functions if each is not None and node is not begin)


def _order(end: Any, begin: Any) -> list[Any]:
    """All nodes that go into `end`, each after its inputs."""
    found: dict[Any, None] = {}
    waiting: list[tuple[Any, bool]] = [(end, False)]
    entered: set[Any] = set()
    while waiting:
        node, done = waiting.pop()
        if done:
            found.setdefault(node)
        elif node not in entered:
            entered.add(node)
            waiting.append((node, True))
            waiting += [(each, False) for each in _inputs(node, begin)]
    return [*found]


def _leaves(end: Any, begin: Any) -> Iterator[int]:
    for node in _order(end, begin):
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield id(variable)


def _kinds(end: Any, begin: Any, own: Mapping[int, str]) -> dict[Any, str]:
    """Of each node whether the block's own weights go into it, other things, or both."""
    kinds: dict[Any, str] = {}
    for node in _order(end, begin):
        variable = getattr(node, "variable", None)
        if variable is not None:
            kinds[node] = OWN if id(variable) in own else OTHER
            continue
        inner = {kinds[each] for each in _inputs(node, begin)}
        kinds[node] = inner.pop() if len(inner) == 1 else BOTH if inner else OTHER
    return kinds
