"""Word and character error rates, with substitutions, deletions and insertions, and a report by clip."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Dict

from av_ssl.io import write_atomically

BITS = 20
SUBSTITUTION = 1 << 3 * BITS
"""Costs are integers that count edits, deletions and insertions in fields of 20 bits: one sum counts all."""
DELETION = SUBSTITUTION + (1 << BITS)
INSERTION = SUBSTITUTION + 1


@dataclass(frozen=True)
class Edits:
    """Edits that turn a reference into a hypothesis, and the reference's length."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors in % of the reference's length; it may exceed 100."""
        return 100 * self.errors / max(1, self.length)

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.rate:.2f} % ({self.substitutions} substitutions, {self.deletions} deletions, "
            f"{self.insertions} insertions; {self.length}"
        )


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Edits:
    """The fewest edits (Levenshtein); of equally many those with the fewest deletions.

    >>> count_edits("a b c".split(), "a x c d".split())
    Edits(substitutions=1, deletions=0, insertions=1, length=3)
    """
    row = [INSERTION * j for j in range(len(hypothesis) + 1)]
    for wanted in reference:
        diagonal, row[0] = row[0], row[0] + DELETION
        for j, found in enumerate(hypothesis, 1):
            same = diagonal if wanted == found else diagonal + SUBSTITUTION
            diagonal, row[j] = row[j], min(same, row[j] + DELETION, row[j - 1] + INSERTION)
    errors, deletions = row[-1] >> 3 * BITS, row[-1] >> BITS & (1 << 2 * BITS) - 1
    insertions = row[-1] & (1 << BITS) - 1
    return Edits(errors - deletions - insertions, deletions, insertions, len(reference))


@dataclass
class ErrorReport:
    """Error rates of a decoded subset; ``clips`` has for each id its word edits, reference and hypothesis."""

    words: Edits = Edits()
    characters: Edits = Edits()
    clips: Dict[str, tuple[Edits, str, str]] = field(default_factory=dict)

    def add(self, clip: str, reference: str, hypothesis: str) -> None:
        """Count a clip; characters include the spaces between words."""
        wanted, found = reference.split(), hypothesis.split()
        edits = count_edits(wanted, found)
        self.words += edits
        reference, hypothesis = " ".join(wanted), " ".join(found)
        self.characters += count_edits(reference, hypothesis)
        self.clips[clip] = (edits, reference, hypothesis)

    def __str__(self) -> str:
        return f"{len(self.clips)} clips, WER {self.words} words), CER {self.characters} characters)"

    def write(self, path: Path) -> None:
        """Write a table: a line for each clip, in alphabetical order."""
        rows: list[tuple[str, ...]] = [
            ("id", "words", "substitutions", "deletions", "insertions", "reference", "hypothesis")
        ]
        for clip, (edits, reference, hypothesis) in sorted(self.clips.items()):
            counts = (edits.length, edits.substitutions, edits.deletions, edits.insertions)
            rows.append((clip, *map(str, counts), reference, hypothesis))
        write_atomically(path, "".join("\t".join(row) + "\n" for row in rows).encode())
