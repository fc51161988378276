"""Stock fairseq 0.12.2 on today's Python, torch and pip; its patches are in `av_ssl_fairseq_hook`."""

from __future__ import annotations

import av_ssl_fairseq_hook


def prepare() -> None:
    """Import fairseq with everything patched that it needs here; a second call does nothing.

    Every module of the plug-in that imports fairseq at its top comes after a call of this.

    Raises:
        ImportError: fairseq, hydra or omegaconf is not installed; says how to patch that.
    """
    av_ssl_fairseq_hook.install()
    try:
        import fairseq  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in {"fairseq", "hydra", "omegaconf"}:
            raise
        raise ModuleNotFoundError(
            f"{error.name} is not installed: run `python -m av_ssl.compat.install_fairseq`",
            name=error.name,
        ) from error
