"""What stock fairseq 0.12.2 and hydra 1.0.7 trip over, and what patches it, each only where it is needed.

| needed on      | what breaks                                                      | patch                 |
|----------------|------------------------------------------------------------------|----------------------|
| Python >= 3.11 | both nest dataclass instances as defaults, which must hash now   | hashing_dataclass    |
| Python >= 3.12 | hydra scans for plug-ins with `find_module`, which finders lost  | patch_plugin_scan     |
| Python >= 3.13 | antlr4 4.8, hydra's parser, imports `typing.io`, which is gone   | restore_typing_io    |
| numpy >= 2     | language models are trained on blocks typed `np.compat.long`      | restore_numpy_compat |
| torch >= 2.6   | `torch.load` refuses what checkpoints hold beside tensors        | checkpoints.py       |
| all            | checkpoints can run code; a kill or a full disk tears them       | checkpoints.py       |
| all            | a key of a stored task that its class lacks ends the loading     | ignore_unknown_keys  |
| all            | keys that av_ssl has renamed are not known any more              | read_renamed_keys    |
| all            | fairseq asks at each start for tensorboardX, which is not needed | silence_tensorboardx |
| all            | hydra demands a plus sign, or none, before an override's key      | accept_overrides     |
| all            | omegaconf 2.0 copies a whole configuration with each part of it    | copy_parts_alone     |
| all            | its grammar refuses many paths, its run folder the relative ones   | paths.py             |
| all            | mistakes of a user end in tracebacks of 40 to 140 lines            | mistakes.py          |
| all            | the thread that reads ahead dies inside torch at exit: an abort  | end_reading_ahead    |

Left alone, as nothing here reaches them: `np.int` and `np.float`, which numpy 1.24 removed, in
`compute_mask_indices(no_overlap=True)` and in the dynamic CRF layer.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import logging
import pkgutil
import queue
import sys
import time
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from av_ssl_fairseq_hook import Finder, is_patched, mistakes

DATACLASS = dataclasses.dataclass
DEFAULTS_MUST_HASH = sys.version_info >= (3, 11)


@functools.wraps(DATACLASS)
def hashing_dataclass(cls: type | None = None, /, **options: Any) -> Any:
    """`dataclasses.dataclass`, but a class of fairseq or hydra gets a hash of its values.

    `default_factory`, the usual answer, is none here: fairseq reads the default instances off the fields.
    """
    if cls is None:
        return functools.partial(hashing_dataclass, **options)
    if is_patched(cls.__module__) and "__hash__" not in vars(cls) and options.get("eq", True):
        options = {"unsafe_hash": True, **options}
    return DATACLASS(cls, **options)


hashing_dataclass.__kwdefaults__ = DATACLASS.__kwdefaults__  # type: ignore[attr-defined]  # torch reads kw_only there


@contextlib.contextmanager
def _dataclass_for(module_name: str) -> Iterator[None]:
    """Give modules of fairseq and hydra the hashing decorator, and what they import in turn the stock one."""
    before = dataclasses.dataclass
    patched = DEFAULTS_MUST_HASH and is_patched(module_name)
    dataclasses.dataclass = hashing_dataclass if patched else DATACLASS
    Finder.executing += patched
    try:
        yield
    finally:
        Finder.executing -= patched
        dataclasses.dataclass = before


class _MendingLoader:
    """Stands in for a module's loader until the module is executed, as `importlib.util.LazyLoader` does."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        _patch(module, BEFORE)
        with _dataclass_for(module.__name__):
            self._loader.exec_module(module)
        _patch(module, AFTER)


@functools.cache
def _hydra_is_stock() -> bool:
    """Whether hydra is the 1.0 that fairseq 0.12.2 asks for; a later one is left as it is."""
    try:
        return importlib.metadata.version("hydra-core").startswith("1.0.")
    except importlib.metadata.PackageNotFoundError:
        return False


def wrap(spec: ModuleSpec) -> ModuleSpec:
    """Have a module patched when it is executed; built-in modules and namespaces have nothing to patch."""
    if spec.name.partition(".")[0] == "hydra" and not _hydra_is_stock():
        return spec
    if hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, type):
        spec.loader = _MendingLoader(spec.loader)  # type: ignore[assignment]
    return spec


def patch_imported() -> None:
    """Patch the modules that were imported before the finder was there (possible on Python 3.10 only)."""
    for name in AFTER.keys() & sys.modules.keys():
        _patch(sys.modules[name], AFTER)


def restore_typing_io(_: ModuleType) -> None:
    """Bring back `typing.io` with the one name that antlr4 4.8 takes from it."""
    module = ModuleType("typing.io")
    module.TextIO = typing.TextIO  # type: ignore[attr-defined]
    sys.modules.setdefault("typing.io", module)


def silence_tensorboardx(module: ModuleType) -> None:
    """Drop one line from the log: fairseq takes torch's own TensorBoard writer before tensorboardX."""
    logging.getLogger(module.__name__).addFilter(lambda record: "tensorboardX" not in record.getMessage())


class _Importer:
    """The two methods of a finder and a loader that hydra's scan for plug-ins calls."""

    def find_module(self, _: str) -> _Importer:
        return self

    def load_module(self, name: str) -> ModuleType:
        return importlib.import_module(name)


def patch_plugin_scan(module: ModuleType) -> None:
    """Give `hydra.core.plugins` a `pkgutil` that hands it importers with `find_module`."""

    def walk_packages(*args: Any, **kwargs: Any) -> Iterator[tuple[_Importer, str, bool]]:
        for info in pkgutil.walk_packages(*args, **kwargs):
            yield _Importer(), info.name, info.ispkg

    module.pkgutil = types.SimpleNamespace(walk_packages=walk_packages)  # type: ignore[attr-defined]


def accept_overrides(module: ModuleType) -> None:
    """Let hydra set a key with or without a plus sign, whether or not the YAML file names it.

    A key that no configuration has is still refused: see `read_renamed_keys`.
    """
    stock: Callable[[list[Any], Any], None] = module.ConfigLoaderImpl._apply_overrides_to_config

    def apply(overrides: list[Any], cfg: Any) -> None:
        for override in overrides:
            mistakes.refuse_key_without_section(override, cfg)
            try:
                stock([override], cfg)
            except module.ConfigCompositionException as error:
                kinds = type(override.type)
                turned = {kinds.ADD: kinds.CHANGE, kinds.CHANGE: kinds.ADD}.get(override.type)
                if turned is None:
                    raise
                try:
                    stock([dataclasses.replace(override, type=turned)], cfg)
                except module.ConfigCompositionException:
                    if turned == kinds.ADD:
                        raise error from error.__cause__  # that of a change names the value, too
                    raise

    module.ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply)


def copy_parts_alone(_: ModuleType) -> None:
    """Let omegaconf 2.0 copy a part of a configuration without what it is a part of, as 2.1 does.

    hydra copies parts hundreds of times when it composes a recipe, which took most of a command's start.
    """
    import omegaconf
    from omegaconf.nodes import ValueNode

    if not omegaconf.__version__.startswith("2.0."):
        return

    def alone(stock: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(stock)
        def copied(node: Any, *arguments: Any) -> Any:
            memo = arguments[-1]
            # Taken for copies until the node is copied: its parent stays, and it gives its children a parent.
            kept = [each for each in (node, vars(node)["_parent"]) if id(each) not in memo]
            memo.update((id(each), each) for each in kept)
            try:
                return stock(node, *arguments)
            finally:
                for each in kept:
                    memo.pop(id(each), None)

        return copied

    for kind, name in (
        (omegaconf.DictConfig, "__deepcopy__"),
        (omegaconf.ListConfig, "__deepcopy__"),
        (ValueNode, "_deepcopy_impl"),
    ):
        setattr(kind, name, alone(getattr(kind, name)))


def take_paths_literally(module: ModuleType) -> None:
    """Let hydra read paths that its grammar refuses."""
    from av_ssl_fairseq_hook import paths

    paths.take_literally(module)


def resolve_paths(module: ModuleType) -> None:
    """Let relative paths start at the folder of the command, not at hydra's run folder."""
    from av_ssl_fairseq_hook import paths

    paths.resolve_paths(module)


def restore_numpy_compat(module: ModuleType) -> None:
    """Give a module a numpy with `compat.long`, Python's int, where numpy itself has lost it."""
    if hasattr(module.np, "compat"):
        return
    numpy = ModuleType("numpy")
    numpy.compat = types.SimpleNamespace(long=int)  # type: ignore[attr-defined]
    numpy.__getattr__ = functools.partial(getattr, module.np)  # type: ignore[method-assign]
    module.np = numpy  # type: ignore[attr-defined]


def allow_checkpoint_classes(_: ModuleType) -> None:
    """Let `torch.load` read the classes that checkpoints of fairseq hold besides tensors."""
    from av_ssl_fairseq_hook import checkpoints

    checkpoints.allow_classes()


def explain_unreadable_checkpoints(module: ModuleType) -> None:
    """Read checkpoints without running code from them, and write them so that a kill leaves the last one."""
    from av_ssl_fairseq_hook import checkpoints

    checkpoints.explain_unreadable(module)


def read_renamed_keys(module: ModuleType) -> None:
    """Let `fairseq.dataclass.utils` read keys that av_ssl has renamed, and name unknown ones."""
    from omegaconf.errors import OmegaConfBaseException

    stock: Callable[..., Any] = module.merge_with_parent
    if hasattr(stock, "__wrapped__"):  # patched before
        return
    mistakes.check_options(module)

    @functools.wraps(stock)
    def merge_with_parent(structure: Any, cfg: Any, remove_missing: bool = False) -> Any:
        _rename_old_keys(structure, cfg)
        if not remove_missing:
            mistakes.refuse_unknown_keys(structure, cfg)
        try:
            return stock(structure, cfg, remove_missing)
        except OmegaConfBaseException as error:
            raise mistakes.Mistake(mistakes.wrong_setting(error, mistakes.section_of(cfg))) from error

    module.merge_with_parent = merge_with_parent  # type: ignore[attr-defined]


def _rename_old_keys(structure: Any, cfg: Any) -> None:
    if str(getattr(structure, "__module__", "")).startswith("av_ssl."):
        from av_ssl.compat.keys import rename_old_keys  # av_ssl is imported already, not by this package

        rename_old_keys(structure, cfg)


def ignore_unknown_keys(module: ModuleType) -> None:
    """Let `fairseq.tasks` drop keys that the task's class lacks, as `fairseq.models` does.

    Only a checkpoint can have them here: in a YAML file and on a command line they are refused before.
    """
    stock: Callable[..., Any] = module.merge_with_parent
    if stock.__module__ == __name__:  # patched before
        return

    def merge_with_parent(structure: Any, cfg: Any) -> Any:
        _rename_old_keys(structure, cfg)
        unknown = sorted(set(cfg) - {known.name for known in dataclasses.fields(structure)})
        if unknown:
            logging.getLogger(module.__name__).warning(
                "ignoring keys that the task %s does not know here: %s", cfg.get("_name"), ", ".join(unknown)
            )
        return stock(structure, cfg, remove_missing=bool(unknown))

    module.merge_with_parent = merge_with_parent  # type: ignore[attr-defined]


SECONDS_FOR_LAST_BATCH = 30.0


def end_reading_ahead(module: ModuleType) -> None:
    """Let `fairseq.data.iterators` end its threads before the interpreter does.

    They are daemons that prepare batches. One that Python stops while it is inside torch's C++ takes the
    process with it ("terminate called without an active exception", exit status 134), though all is done.
    """
    stock: Callable[[Any], None] = module.BufferedIterator._create_consumer
    consumers: weakref.WeakSet[Any] = weakref.WeakSet()

    def create_consumer(iterator: Any) -> None:
        stock(iterator)
        consumers.add(iterator._consumer)

    def end() -> None:
        deadline = time.monotonic() + SECONDS_FOR_LAST_BATCH  # a read that hangs must not keep the process
        for consumer in list(consumers):
            consumer._max_len = 0  # it stops after the batch that it is at
            while consumer.is_alive() and time.monotonic() < deadline:
                with contextlib.suppress(queue.Empty):
                    consumer._queue.get(timeout=0.05)  # it may be waiting for room

    module.BufferedIterator._create_consumer = create_consumer
    atexit.register(end)


Patch = Callable[[ModuleType], None]
# Module to (least Python version, patch), run before or after the module's own code.
BEFORE: dict[str, tuple[tuple[int, int], Patch]] = {
    "hydra": ((3, 13), restore_typing_io),
    "hydra._internal.config_loader_impl": ((3, 10), copy_parts_alone),
    "fairseq": ((3, 10), mistakes.report_in_one_line),
    "fairseq.tasks.text_to_speech": ((3, 10), silence_tensorboardx),
}
AFTER: dict[str, tuple[tuple[int, int], Patch]] = {
    "hydra._internal.config_loader_impl": ((3, 10), accept_overrides),
    "hydra._internal.utils": ((3, 10), mistakes.patch_error_report),
    "hydra.core.override_parser.overrides_parser": ((3, 10), take_paths_literally),
    "hydra.core.utils": ((3, 10), resolve_paths),
    "hydra.core.plugins": ((3, 12), patch_plugin_scan),
    "fairseq": ((3, 10), allow_checkpoint_classes),
    "fairseq.checkpoint_utils": ((3, 10), explain_unreadable_checkpoints),
    "fairseq.data.iterators": ((3, 10), end_reading_ahead),
    "fairseq.data.token_block_dataset": ((3, 10), restore_numpy_compat),
    "fairseq.dataclass.initialize": ((3, 10), mistakes.check_names),
    "fairseq.dataclass.utils": ((3, 10), read_renamed_keys),
    "fairseq.distributed.utils": ((3, 10), mistakes.check_devices),
    "fairseq.options": ((3, 10), mistakes.explain_options),
    "fairseq.tasks": ((3, 10), ignore_unknown_keys),
    "fairseq.trainer": ((3, 10), mistakes.check_training),
}


def _patch(module: ModuleType, table: dict[str, tuple[tuple[int, int], Patch]]) -> None:
    """Run the patch that the table holds for a module, if this Python needs it."""
    if module.__name__ in table:
        least_python, patch = table[module.__name__]
        if sys.version_info >= least_python:
            patch(module)
