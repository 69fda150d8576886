"""What a run of reading and converting left out or changed, so that nothing vanishes silently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import MMCoTError


@dataclass
class Findings:
    """A broken row raises its error, or is skipped and listed where `skip_invalid` is set.

    `skipped` holds the errors of skipped rows, `lost` what could not be kept, `changed` what was
    kept in another form; the last two map a headline to the places.
    """

    skip_invalid: bool = False
    skipped: list[str] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, error: MMCoTError) -> None:
        if not self.skip_invalid:
            raise error
        self.skipped.append(str(error))

    def lose(self, headline: str, place: str) -> None:
        self.lost.setdefault(headline, []).append(place)

    def change(self, headline: str, place: str) -> None:
        self.changed.setdefault(headline, []).append(place)

    def lines(self, changes_shown: int = 5) -> Iterator[str]:
        """The report: every skipped row and every loss, and the first few of each change."""
        if self.skipped:
            yield f"{len(self.skipped)} broken rows skipped:"
            yield from (f"  {error}" for error in self.skipped)
        for headline, places in self.lost.items():
            yield f"{headline}: {len(places)}"
            yield from (f"  {place}" for place in places)
        for headline, places in self.changed.items():
            yield f"{headline}: {len(places)}"
            yield from (f"  {place}" for place in places[:changes_shown])
            if len(places) > changes_shown:
                yield f"  and {len(places) - changes_shown} more"
