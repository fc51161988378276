"""Lets stock fairseq 0.12.2 and hydra 1.0 run on Python 3.10 to 3.13; neither package is edited.

`install` puts a finder first on `sys.meta_path` that acts on modules of fairseq and hydra while these are
imported (`patches` says how) and costs any other process about a millisecond.  The stock commands reach it
through `av_ssl_fairseq_hook.pth`, which Python runs at its start when it lies in site-packages; where no
`.pth` file is read, `python -m av_ssl_fairseq_hook COMMAND` starts a stock command with the finder in place.

This is a package of its own because fairseq's `--user-dir` does not register the tasks and models of a
plug-in that is imported already: what runs at interpreter start must leave `av_ssl` out of `sys.modules`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing for it would double what every interpreter start pays
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PATCHED_PACKAGES = frozenset({"fairseq", "hydra"})


def is_patched(module_name: str) -> bool:
    """Whether a module belongs to a package that is patched."""
    return module_name.partition(".")[0] in PATCHED_PACKAGES


class Finder:
    """Lets the finders behind it find a module of fairseq or hydra, and has `patches` execute it."""

    # How many of these modules are executing, one inside the other, with another `dataclasses.dataclass`:
    # what they import in turn goes through `patches` as well, to get the stock one back.
    executing = 0

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not is_patched(name) and not cls.executing:
            return None
        for finder in sys.meta_path:
            if finder is cls or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                from av_ssl_fairseq_hook import patches

                return patches.wrap(spec)
        return None


def install() -> None:
    """Put the finder first; where it is first already, this does nothing."""
    if sys.meta_path[0] is Finder:
        return
    if Finder in sys.meta_path:
        # pytest has put its own before it, which takes the modules of hydra, as hydra has a pytest plug-in.
        sys.meta_path.remove(Finder)
    elif not PATCHED_PACKAGES.isdisjoint(sys.modules):
        from av_ssl_fairseq_hook import patches

        patches.patch_imported()
    sys.meta_path.insert(0, Finder)
