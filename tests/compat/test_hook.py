"""The finder: what it patches, and that it leaves everything else alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq.data import TokenBlockDataset

import av_ssl_fairseq_hook

REPOSITORY = Path(__file__).resolve().parents[2]


def run_code(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh Python that finds the repository's packages."""
    return subprocess.run(
        [sys.executable, *options, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=300,
    )


def check(code: str, *options: str) -> str:
    """What the code prints; it must not fail."""
    result = run_code(code, *options)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_plug_in_costs_no_import_of_torch_or_fairseq() -> None:
    code = "import av_ssl; print(sorted({'torch', 'fairseq', 'hydra', 'numpy'} & set(sys.modules)))"
    assert check(code) == "[]"


def test_a_process_without_fairseq_is_untouched() -> None:
    code = """
import dataclasses, pkgutil
stock = dataclasses.dataclass, pkgutil.walk_packages
before = set(sys.modules)
import av_ssl_fairseq_hook
av_ssl_fairseq_hook.install()
import csv, json, xml.dom.minidom
added = set(sys.modules) - before
assert 'typing.io' not in added
assert stock == (dataclasses.dataclass, pkgutil.walk_packages)
print([name for name in sorted(added) if 'fairseq' in name])
"""
    assert check(code, "-S") == "['av_ssl_fairseq_hook']"


def test_it_does_not_import_what_a_start_of_python_pays_for() -> None:
    code = "before = set(sys.modules); import av_ssl_fairseq_hook; print(sorted(set(sys.modules) - before))"
    assert check(code, "-S") == "['__future__', 'av_ssl_fairseq_hook']"


def test_installing_again_keeps_one_finder_and_keeps_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = av_ssl_fairseq_hook.Finder
    monkeypatch.setattr(sys, "meta_path", [entry for entry in sys.meta_path if entry is not finder])
    av_ssl_fairseq_hook.install()
    av_ssl_fairseq_hook.install()
    assert sys.meta_path.index(finder) == 0
    sys.meta_path.insert(0, object())
    av_ssl_fairseq_hook.install()
    assert sys.meta_path[0] is finder
    assert sys.meta_path.count(finder) == 1


@pytest.mark.parametrize(
    ("name", "patched"),
    [
        ("fairseq", True),
        ("fairseq.data", True),
        ("hydra.core", True),
        ("fairseq_cli", False),
        ("torch", False),
    ],
)
def test_only_fairseq_and_hydra_are_mended(name: str, patched: bool) -> None:
    assert av_ssl_fairseq_hook.is_patched(name) is patched


def test_fairseq_is_imported_and_dataclasses_are_as_before() -> None:
    code = """
import av_ssl_fairseq_hook, dataclasses
stock = dataclasses.dataclass
av_ssl_fairseq_hook.install()
import fairseq
from fairseq.dataclass.configs import CommonConfig, FairseqConfig
import torch._dynamo
assert dataclasses.dataclass is stock
if sys.version_info >= (3, 11):
    assert hash(CommonConfig()) == hash(CommonConfig()) != hash(CommonConfig(seed=2))
else:
    assert CommonConfig.__hash__ is None
assert FairseqConfig.__dataclass_fields__['common'].default == CommonConfig()
assert type(fairseq.__loader__).__name__ == 'SourceFileLoader'
assert fairseq.__loader__ is fairseq.__spec__.loader
print([name for name, module in sys.modules.items()
       if name.startswith('torch.') and vars(module).get('dataclass', stock) is not stock])
"""
    assert check(code) == "[]"


def test_fairseq_that_was_imported_first_is_mended_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 imports fairseq without the finder; the plug-in brings the finder in afterwards."""
    from av_ssl_fairseq_hook import patches

    patched = []
    monkeypatch.setitem(patches.AFTER, "json", ((3, 10), patched.append))
    monkeypatch.setitem(patches.AFTER, "a_module_that_nobody_imported", ((3, 10), patched.append))
    for name in ("fairseq", "hydra._internal.utils", "hydra.core.plugins"):
        monkeypatch.delitem(patches.AFTER, name)
    patches.patch_imported()
    assert [module.__name__ for module in patched] == ["json"]


def test_text_is_cut_into_blocks_without_what_numpy_dropped() -> None:
    """fairseq's language models ask for `np.compat.long` at `--sample-break-mode eos`."""
    lines = [torch.tensor([4, 5, 2]), torch.tensor([6, 2])]
    blocks = TokenBlockDataset(lines, [3, 2], block_size=None, pad=1, eos=2, break_mode="eos")
    assert [block.tolist() for block in blocks] == [[4, 5, 2], [6, 2]]


def test_leaving_while_fairseq_reads_ahead_is_no_abort() -> None:
    """Its daemon thread, inside torch when Python ends, used to end the process with status 134."""
    code = """
import torch
from fairseq.data.iterators import BufferedIterator

class Batches:
    def __len__(self):
        return 10**6
    def __iter__(self):
        for _ in range(len(self)):
            batch = torch.ones(100, 100)
            for _ in range(10):
                batch = torch.stack([batch, batch.t()]).mean(0)
            yield batch

far_ahead, full = BufferedIterator(10**5, Batches()), BufferedIterator(1, Batches())
for _ in range(20):
    print(next(far_ahead).sum().item(), next(full).sum().item())
"""
    assert check(code).splitlines() == ["10000.0 10000.0"] * 20


def test_the_launcher_lists_the_commands_it_knows(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "av_ssl_fairseq_hook", "fairseq-trian"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert result.returncode == 2
    assert "fairseq-train" in result.stderr
