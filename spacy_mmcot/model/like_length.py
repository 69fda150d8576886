"""Sequences in groups of like length, so that padding them wastes little."""

from __future__ import annotations

from collections.abc import Sequence


def like_length(lengths: Sequence[int], most: int, fill: float = 0.0) -> list[list[int]]:
    """Indexes, longest first, in groups: padded, a group is at most `most` long in all, or one
    sequence; its shortest has at least the share `fill` of its longest's length."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if found:
            longest = lengths[found[-1][0]]
            full = (len(found[-1]) + 1) * longest > most
            if not full and lengths[i] >= fill * longest:
                found[-1].append(i)
                continue
        found.append([i])
    return found
