"""A short form of ``tests/damage.py``."""

from tests.damage import try_damages


def test_damage_is_never_silent(tmp_path):
    for name, outcomes in try_damages(tmp_path, 30, seed=1).items():
        assert outcomes.keys() <= {"refused", "reported", "same"}, name
        assert outcomes["refused"] + outcomes["reported"], name
