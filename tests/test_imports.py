"""Imports point one way, and no two modules import each other; imports inside functions count."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "av_ssl"
LAYERS = (
    "errors", "io", "layout", "manifest", "jobs", "compat", "media", "corpora", "device", "data", "modules",
    "optim", "targets", "checkpoints", "methods", "recognition", "classification", "tasks", "inference",
    "transcription", "sharing", "model", "demo", "analysis", "cli",
)  # fmt: skip
"""Modules and packages of av_ssl; each may import those before it."""
WITHOUT_TORCH = ("errors", "io", "layout", "manifest", "jobs", "media", "corpora")

Imports = dict[str, set[str]]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, modules: frozenset[str]) -> set[str]:
    """Modules of this package that a file imports, and the roots of other packages, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [member if member in modules else str(node.module) for member in members]
        else:
            continue
        found |= {name if name in modules else name.partition(".")[0] for name in names}
    return found


@pytest.fixture(scope="module")
def imports() -> Imports:
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    modules = frozenset(paths)
    return {name: imported(path, modules) - {name} for name, path in paths.items()}


def layer(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_a_layer(imports: Imports) -> None:
    assert {layer(name) for name in imports if name != "av_ssl"} == set(LAYERS)


def test_imports_point_down(imports: Imports) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in sorted(imports.items())
        for other in sorted(others)
        if name != "av_ssl" and other.startswith("av_ssl.")
        if LAYERS.index(layer(other)) > LAYERS.index(layer(name))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles(imports: Imports) -> None:
    def search(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in sorted(imports[module] & imports.keys() - {"av_ssl"}):
                search(other, (*trail, module))
            done.add(module)

    done: set[str] = set()
    for module in sorted(imports.keys() - {"av_ssl"}):
        search(module, ())


def test_preparation_needs_no_torch(imports: Imports) -> None:
    wrong = [
        f"{name} imports {root}"
        for name, others in sorted(imports.items())
        if name != "av_ssl" and layer(name) in WITHOUT_TORCH
        for root in sorted(others & {"torch", "fairseq", "omegaconf", "hydra"})
    ]
    assert not wrong, "\n".join(wrong)


def reached(module: str, imports: Imports) -> set[str]:
    """Modules of this package that importing one of them imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in imports and name not in found:
            found.add(name)
            waiting += imports[name]
    return found


def test_what_loads_models_registers_all_of_them(imports: Imports) -> None:
    """A command that builds models by name must import ``av_ssl.tasks``, or some would be unknown to it."""
    entries = [
        name
        for name in imports
        if LAYERS.index(layer(name) if "." in name else "cli") > LAYERS.index("tasks")
    ]
    loading = [name for name in entries if "av_ssl.checkpoints.loading" in reached(name, imports)]
    assert "av_ssl.cli.targets" in loading
    wrong = [
        name for name in loading if not any(m.startswith("av_ssl.tasks") for m in reached(name, imports))
    ]
    assert not wrong, ", ".join(wrong)
