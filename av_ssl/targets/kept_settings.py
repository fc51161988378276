"""What files in a folder were made with, so that results of different settings never mix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av_ssl.errors import DataError
from av_ssl.media.files import write_atomically


def keep_settings(path: Path, settings: Mapping[str, Any], mend: str) -> None:
    """Note `settings` in the file, or compare with what it holds.

    Raises DataError, which names the settings that differ and ends with `mend`, or when the file is damaged.
    """
    if path.exists():
        check_settings(path, settings, mend)
    else:
        write_atomically(path, json.dumps(settings, indent=1).encode() + b"\n")


def check_settings(path: Path, settings: Mapping[str, Any], mend: str) -> None:
    """Compare `settings` with what the file holds, if it is there; raises DataError, see `keep_settings`."""
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_text())
        kept_items = dict(kept)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: holds no settings ({error}); {mend}") from error
    differing = [
        f"{name} {_shown(kept_items.get(name))} (now {_shown(settings.get(name))})"
        for name in dict.fromkeys([*kept_items, *settings])
        if kept_items.get(name) != settings.get(name)
    ]
    if differing:
        raise DataError(f"{path}: what is here was made with {', '.join(differing)}; {mend}")


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; raises DataError when it cannot be read."""
    result = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                result.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return result.hexdigest()


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:8]}..." if len(text) == 64 else text
