"""What recognisers are tested on: streams, and which clips with which sound."""

from collections.abc import Iterable

MODALITIES = {"video": "VSR", "audio": "ASR", "av": "AVSR"}
NOISE_DB = 0
CLIPS = {"clean": "clean", "noisy": f"{NOISE_DB} dB babble", "long": "twice as long"}
"""Test clips as they are, in noise, or two joined to one."""

Condition = tuple[str, str]
"""Modalities and clips."""
# Noise does not change what a lip-reader sees.
CONDITIONS: tuple[Condition, ...] = (
    ("video", "clean"), ("audio", "clean"), ("av", "clean"), ("audio", "noisy"), ("av", "noisy"),
)  # fmt: skip
LONG_CONDITIONS: tuple[Condition, ...] = tuple((m, clips) for clips in ("clean", "long") for m in MODALITIES)


def title(condition: Condition) -> str:
    """
    >>> title(("video", "clean")), title(("av", "noisy"))
    ('VSR', 'AVSR, 0 dB babble')
    """
    modalities, clips = condition
    hidden = modalities == "video" and clips == "clean"
    return MODALITIES[modalities] + ("" if hidden else f", {CLIPS[clips]}")


def titles(conditions: Iterable[Condition]) -> dict[str, str]:
    """Titles by condition, whose parts an underscore joins.

    >>> titles([("video", "clean")])
    {'video_clean': 'VSR'}
    """
    return {"_".join(condition): title(condition) for condition in conditions}
