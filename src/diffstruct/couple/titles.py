"""What widths are called: by the first module that feeds them, and what they are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import nn

from diffstruct.couple.findings import Findings, Place
from diffstruct.couple.terms import Leaf, leaves


def titles_of(
    lives: Mapping[Leaf, list[Place]], findings: Findings, names: Mapping[nn.Module, str]
) -> dict[Leaf, str]:
    """A name for each width: the first module that feeds it, and what it is there, if that has several."""
    kinds = dict(_kinds(lives, findings))
    order = {tensor: index for index, tensor in enumerate(findings.used)}
    base: dict[Leaf, str] = {}
    for leaf, places in lives.items():
        feeding = [place for place in places if place not in findings.reading or place in findings.feeding]
        first = min(feeding, key=lambda place: order.get(place.tensor_id, len(order)))
        base[leaf] = names[first.module].split(".parametrizations.")[0] or first.name
    counts = Counter(name for leaf, name in base.items() if leaf.size > 1)
    titles: dict[Leaf, str] = {}
    for leaf, name in sorted(base.items(), key=lambda item: item[0].size == 1):  # does not rename the others
        if leaf in kinds:
            name += f".{kinds[leaf]}"
        elif counts[name] > 1:
            name += f".part{sum(other.startswith(name) for other in titles.values())}"
        taken, title = 1, name
        while title in titles.values():
            taken += 1
            title = f"{name}{taken}"
        titles[leaf] = title
    return titles


def _kinds(lives: Mapping[Leaf, list[Place]], findings: Findings) -> Iterator[tuple[Leaf, str]]:
    """What units are in attention; of several answers, the last is right.

    Where each head of keys and values serves several heads of queries, these are a group; units are groups,
    or what one head of queries in every group is.
    """
    for meeting in findings.inner:
        for leaf in leaves(meeting.term):
            yield leaf, "head_width"
    for term in findings.heads:
        own = [leaf for leaf in leaves(term) if leaf in lives]
        for leaf in own:
            yield leaf, "heads"
        if len(own) == 2:
            groups, each = ({(p.module, p.name, p.dim) for p in lives[leaf]} for leaf in own)
            if each < groups:
                yield own[0], "groups"
                yield own[1], "group_size"
