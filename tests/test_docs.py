"""The documentation's commands are accepted by the programs they call, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from fairseq import options

from av_ssl.analysis.plan import read_recipe
from av_ssl.cli.main import build_parser, command_name

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md")
    for page in REPOSITORY.glob(pattern)
)
PLACEHOLDERS = {"$PWD": "/somewhere", "$PLUGIN": str(REPOSITORY / "av_ssl"), "$DATA": "/data", "$RUN": "/run"}
PROGRAMS = ("av-ssl", "fairseq-hydra-train", "fairseq-generate")


def commands(page: Path) -> list[str]:
    """Commands in the code blocks of a page, continued lines joined, comments removed."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    blocks = re.findall(r"^```(?:bash|sh|)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^(?: {4}|\t)(?!\s)(.*)$", text, re.MULTILINE)
    found = []
    for line in lines:
        if line.startswith(PROGRAMS):
            for name, value in PLACEHOLDERS.items():
                line = line.replace(name, value)
            found.append(line)
    return found


COMMANDS = [
    pytest.param(command, id=f"{page.relative_to(REPOSITORY)}: {command[:60]}")
    for page in PAGES
    for command in commands(page)
    if "..." not in command
]


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(command, comments=True)
    if program == "av-ssl":
        if words[0].startswith("-"):
            return
        name = command_name(words)
        assert name is not None, f"{words[:2]}: no such command"
        parser, _ = build_parser(name)
        parser.parse_args(words)
    elif program == "fairseq-hydra-train":
        assert words[0] == "--config-dir"
        assert words[2] == "--config-name"
        overrides = [word for word in words[4:] if not word.startswith(("task.data=", "common.user_dir="))]
        read_recipe(REPOSITORY / words[1] / f"{words[3]}.yaml", Path("/data"), overrides)
    else:
        monkeypatch.setattr("sys.argv", [program, *words])
        options.parse_args_and_arch(options.get_generation_parser(), words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken
