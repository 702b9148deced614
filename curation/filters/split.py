"""Splits images into training and validation, such that similar images land on the same side.

    places = assign_places([["a", "b"], ["b", "c"], ["d"]], known={})    # a, b, c have one place
    split_of(places["a"].at, share=0.1)                                  # "train"

Images that look alike, and all images of one question, are one group. A group has a place
between 0 and 1, a hash of its name; the places below 0.1 are a validation set of a tenth, those
below 0.05 a part of the same. Row order plays no part, and importing again changes nothing.

A group that grows keeps its place. That takes memory (`known`), for no hash of its members can
promise it: a new one may be named first. Where new images join two groups into one, the greater
place counts: whatever was trained on once is never validation afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from curation.filters.union_find import UnionFind

SHARE = 0.1
"""Share of the groups that are validation by default."""


@dataclass(frozen=True, slots=True)
class SplitPlace:
    """Where an image stands between validation (near 0) and training."""

    group: str
    """The group's name: the smallest image id in it."""
    at: float
    """In [0, 1), the same for the whole group."""


def assign_places(
    together: Iterable[Sequence[str]], known: Mapping[str, SplitPlace]
) -> dict[str, SplitPlace]:
    """Give every image, old and new, its place.

    Args:
        together: image ids that belong on one side: those of a question, those that look alike.
        known: the places given before; a group once made stays one.
    """
    links = [*map(list, together), *([image_id, p.group] for image_id, p in known.items())]
    groups = UnionFind(image_id for image_ids in links for image_id in image_ids)
    for image_ids in links:
        groups.union(image_ids)
    at: dict[str, float] = {}
    for image_id, place in known.items():
        name = groups.find(image_id)
        at[name] = max(place.at, at.get(name, 0.0))
    every = {image_id for image_ids in links for image_id in image_ids}
    names = {image_id: groups.find(image_id) for image_id in sorted(every)}
    return {
        i: SplitPlace(name, at[name] if name in at else _hashed(name)) for i, name in names.items()
    }


def split_of(at: float, share: float = SHARE) -> str:
    """Return the side of a place: `validation` or `train`."""
    return "validation" if at < share else "train"


def _hashed(name: str) -> float:
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"vigorl-fold").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53  # exact, and never 1
