"""Commands run in this process."""

from collections.abc import Callable

import pytest

from av_ssl.cli.main import main


def call(*words: object) -> int:
    """Exit status of ``av-ssl WORDS``."""
    return main([*map(str, words)])


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """Takes the exit status of a command that must fail; returns its error."""

    def error(status: int) -> str:
        assert status == 1
        return capsys.readouterr().err

    return error
