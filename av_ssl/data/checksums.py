"""``SHA256SUMS`` of a data folder: the list that ``sha256sum`` writes and ``sha256sum -c`` reads.

Crops, sound and labels hold no checksums of their own, so a flipped bit in them looks like any other value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError
from av_ssl.io import digest, read_text

CHECKSUMS = "SHA256SUMS"
FIX = "make the list again with sha256sum"
LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")


@dataclass(frozen=True)
class Checksum:
    """A file and its digest, from a line of the list (``place``)."""

    place: str
    file: Path
    sha256: str

    def problem(self) -> str | None:
        """What is wrong with the file; None if it has this digest."""
        try:
            found = digest(self.file)
        except DataError as error:
            return f"{self.place}: {error}; restore the file, or {FIX}"
        if found != self.sha256:
            return f"{self.place}: {self.file} is not the file that was listed; restore it, or {FIX}"
        return None


def read_checksums(folder: Path) -> tuple[list[Checksum], list[str]]:
    """Files that the list of a folder names, and its malformed lines; nothing where there is no list."""
    path = folder / CHECKSUMS
    if not path.exists():
        return [], []
    listed, problems = [], []
    try:
        lines = read_text(path, FIX).split("\n")
    except DataError as error:
        return [], [str(error)]
    for number, line in enumerate(lines, start=1):
        place, found = f"{path}, line {number}", LINE.fullmatch(line)
        if found:
            # A backslash at the start says that those in the name are doubled and ends of lines are \n.
            name = re.sub(r"\\(.)", lambda m: m[1].replace("n", "\n"), found[3]) if found[1] else found[3]
            listed.append(Checksum(place, folder / name, found[2].lower()))
        elif line.strip():
            problems.append(f"{place}: is not 64 hexadecimal digits, two spaces and a file; {FIX}")
    return listed, problems
