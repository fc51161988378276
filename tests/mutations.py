"""Changes one operator, number or argument at a time, and counts the changes that tests notice.

``python tests/mutations.py`` takes a seeded sample of the modules that hold losses, targets, masks, alignment
and scores, and runs for each mutant the tests that mirror its module. It works in a copy of the checkout. The
mutation operators are mutmut's (``pip install mutmut``); its own runner writes all mutants of a module into
one file, which takes minutes for each of ours. Results: CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import CodeType, FunctionType

import libcst
import libcst.matchers
import pytest
from libcst.metadata import MetadataWrapper

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST = 60
"""Seconds of a processor; a mutant that takes longer counts as noticed."""

MODULES = {
    "methods/av2vec": "methods/test_av2vec_loss.py methods/test_av2vec.py methods/test_av_hubert.py",
    "methods/av_hubert": "methods/test_av_hubert.py",
    "methods/masked_units": "methods/test_av_hubert.py",
    "methods/distillav": "methods/test_distillav_loss.py methods/test_distillav.py",
    "methods/teacher_heads": "methods/test_teacher_heads.py methods/test_distillav.py",
    "methods/raven/pretraining": "methods/test_raven_loss.py methods/test_raven.py",
    "methods/fused_encoder": "methods/test_fused_encoder.py methods/test_av_hubert.py",
    "modules/masked_frames": "modules/test_masked_frames.py modules/test_waveform_frontend.py",
    "modules/aligned_mtl": "modules/test_aligned_mtl.py",
    "data/masking": "data/test_masking.py data/test_unimodal_masking.py data/test_time_masking.py",
    "data/spans": "data/test_spans.py data/test_masking.py",
    "data/teacher_batch": "data/test_teacher_batch.py",
    "targets/ema": "targets/test_ema.py",
    "targets/collapse": "targets/test_collapse.py",
    "targets/mfcc": "targets/test_mfcc.py",
    "targets/clusters": "targets/test_clusters.py",
    "targets/cluster_labels": "targets/test_cluster_labels.py cli/test_targets_clusters.py",
    "targets/teacher_targets": "targets/test_teacher_targets.py cli/test_targets_teacher.py",
    "targets/feature_shards": "targets/test_clusters.py cli/test_targets_clusters.py",
    "media/alignment": "media/test_alignment.py",
    "transcription/forced_alignment": "transcription/test_word_times.py cli/test_align.py",
    "transcription/word_times": "transcription/test_word_times.py",
    "analysis/alignments": "analysis/test_alignments.py cli/test_analyse.py",
    "analysis/cka": "analysis/test_cka.py cli/test_analyse.py",
    "recognition/error_rates": "recognition/test_error_rates.py",
    "recognition/ctc_generator": "recognition/test_ctc_generator.py",
    "recognition/prefix_search": "recognition/test_ctc_generator.py",
    "recognition/search": "recognition/test_joint.py recognition/test_choose.py",
    "recognition/hybrid_criterion": "recognition/test_hybrid_criterion.py",
    "recognition/distillation": "recognition/test_distillation.py",
    "classification/criterion": "classification/test_criterion.py",
    "classification/verification": "classification/test_verification.py",
    "classification/lupi": "classification/test_lupi.py",
    "cli/score": "cli/test_score.py",
}
"""Test files, below ``tests``, of modules below ``av_ssl``."""


def mutants(source: str, rng: random.Random) -> Iterator[tuple[int, str]]:
    """Line and text of each mutant of a module, in a random order.

    Only what is inside functions is changed. Texts, log lines and what is raised are left alone, and values
    are not replaced by ``None``: nearly all of those end in a crash and would only raise the score.
    """
    from mutmut.mutation import file_mutation, mutators
    from mutmut.mutation.pragma_handling import IgnoredCode

    left_out = {mutators.operator_string, mutators.operator_assignment, mutators.operator_lambda}
    operators = [
        (kind, operator) for kind, operator in mutators.mutation_operators if operator not in left_out
    ]
    lines = source.splitlines()
    wrapper = MetadataWrapper(libcst.parse_module(source), unsafe_skip_copy=True)
    visitor = file_mutation.MutationVisitor(operators, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)
    positions = wrapper.resolve(libcst.metadata.PositionProvider)
    none = libcst.matchers.Arg(value=libcst.matchers.Name("None"))
    rng.shuffle(visitor.mutations)
    for mutation in visitor.mutations:
        old, new = mutation.original_node, mutation.mutated_node
        line = positions[old].start.line if old in positions else 0
        quiet = any(word in lines[line - 1] for word in ("raise ", "logger.", "warn(", "print("))
        arguments = zip(old.args, new.args, strict=False) if isinstance(old, libcst.Call) else ()
        empty = any(a is not b and libcst.matchers.matches(b, none) for a, b in arguments)
        if mutation.contained_by_top_level_function and not quiet and not empty:
            yield line, wrapper.module.deep_replace(old, new).code


def outcome(tests: list[str], replaced: Sequence[tuple[FunctionType, CodeType]] = ()) -> str:
    """Of the tests in a process of their own, in which functions have other code."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
        for function, code in replaced:
            function.__code__ = code
        os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *tests])) != 0)
    end = time.monotonic() + 20 * LONGEST
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "too long" if os.WIFSIGNALED(status) else "noticed" if status else "survived"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "too long"


def functions_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from functions_in(constant)


def replacements(path: Path, text: str, loaded: list[FunctionType]) -> list[tuple[FunctionType, CodeType]]:
    """Loaded functions of a module whose code differs in its changed text."""
    codes = {
        (code.co_name, code.co_firstlineno): code
        for code in functions_in(compile(text, path, "exec", dont_inherit=True))
    }
    found = []
    for function in loaded:
        old = function.__code__
        code = codes.get((old.co_name, old.co_firstlineno), old)
        if code != old and code.co_freevars == old.co_freevars:
            found.append((function, code))
    return found


def run(module: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Outcome and change of each mutant in the sample of a module."""
    path = Path("av_ssl", f"{module}.py").resolve()
    tests = [f"tests/{name}" for name in MODULES[module].split()]
    with redirect_stdout(StringIO()):
        pytest.main(["-q", "--collect-only", *tests])  # imports them and all that they need
    import_module(f"av_ssl.{module.replace('/', '.')}")  # a command is imported when it is called
    functions = [found for found in gc.get_objects() if type(found) is FunctionType]
    loaded = [function for function in functions if function.__code__.co_filename == str(path)]
    if outcome(tests) != "survived":
        raise SystemExit(f"{' '.join(tests)}: fail, or take over {LONGEST} s, without any mutant")
    source = path.read_text()
    made = 0
    for line, text in mutants(source, random.Random(f"{seed} {module}")):
        replaced = replacements(path, text, loaded)
        if not replaced:
            continue
        if made == count:
            break
        made += 1
        path.write_text(text)  # for the processes that tests start
        os.utime(path, (time.time(), 10**9 + made))  # a time that no compiled file holds
        changed = difflib.unified_diff(source.splitlines(), text.splitlines(), lineterm="", n=0)
        change = "\n".join(row for row in changed if row[:1] in "+-" and row[:3] not in ("+++", "---"))
        yield outcome(tests, replaced), f"av_ssl/{module}.py:{line}\n{change}"
    path.write_text(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "modules", nargs="*", default=list(MODULES), metavar="MODULE", help=", ".join(MODULES)
    )
    parser.add_argument("--count", type=int, default=12, help="mutants of each module (default: 12)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mutations_"))
    shutil.copytree(
        REPOSITORY, folder / "copy", ignore=shutil.ignore_patterns(".git", ".venv", "out", "runs")
    )
    os.chdir(folder / "copy")
    os.environ["PYTHONPATH"] = str(folder / "copy")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.path[0] = str(folder / "copy")
    import av_ssl  # noqa: F401 - its import hook must stand before that of pytest

    totals = dict.fromkeys(("noticed", "too long", "survived"), 0)
    for module in options.modules:
        counts = dict.fromkeys(totals, 0)
        for result, change in run(module, options.count, options.seed):
            counts[result] += 1
            if result == "survived":
                print(change, flush=True)
        print(f"{module}: {counts}", flush=True)
        totals = {name: totals[name] + counts[name] for name in totals}
    print(f"all: {totals}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
