"""A user's mistake ends a stock command with one line that names the fix, and before work starts.

`HYDRA_FULL_ERROR=1` shows the traceback, too.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.util
import linecache
import logging
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

FULL_ERROR = "HYDRA_FULL_ERROR"
NOT_SET = "MissingMandatoryValue"
OWN = re.compile(r"^(?:av_ssl\.errors\.\w+|av_ssl_fairseq_hook\.mistakes\.Mistake): ", re.M)
"""What precedes the text of an error in a traceback."""

logger = logging.getLogger(__name__)


OTHER_MODEL = re.compile(r"Cannot load model parameters from checkpoint (.+); please ensure")


class Mistake(ValueError):
    """A command or a recipe that cannot work as it is; the text is for the user."""


# -- from an error to one line -------------------------------------------------------------------------------


def one_line(error: BaseException) -> str | None:
    """What the user did wrong and what to do; None for an error of another kind."""
    cause = error.__cause__ if type(error).__module__.startswith("hydra.") else error
    if cause is not None and type(cause).__module__.startswith("omegaconf."):
        return wrong_setting(cause)
    if type(error).__module__.startswith("hydra.") and (text := wrong_override(error)):
        return text
    if isinstance(error, Mistake) or _of_av_ssl(error):
        return OWN.split(str(error))[-1].strip()  # the text from a process that reads clips is its traceback
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: no such file or folder; check the path"
    if isinstance(error, IsADirectoryError) and error.filename:
        from av_ssl_fairseq_hook.checkpoints import SAFETENSORS, TO_CONVERT

        shared = Path(error.filename, f"model{SAFETENSORS}").is_file()
        return f"{error.filename}: {TO_CONVERT if shared else 'is a folder; name a file in it'}"
    if isinstance(error, OSError) and str(error).startswith("Model file not found: "):
        return f"{str(error).partition(': ')[2]}: there is no such checkpoint"
    if other := OTHER_MODEL.match(str(error)):
        within = None if error.__context__ is None else one_line(error.__context__)
        _, *details = str(error.__context__).splitlines()
        first = details[0].strip() if details else str(error.__context__)
        return within or (
            f"{other[1]}: was trained with another model than that of the recipe now ({first}): restore the "
            "keys of model, or begin in another checkpoint.save_dir"
        )
    if isinstance(error, KeyError | AssertionError | ValueError) and (text := of_fairseq(error)):
        return text
    if type(error).__name__ == "ProcessRaisedException":  # its text is the traceback of a process for one GPU
        _, *found = OWN.split(str(error))
        return found[-1].strip() if found else None
    return None


def of_fairseq(error: BaseException) -> str | None:
    """What is wrong where one of fairseq's commands itself has failed to find something."""
    if error.__traceback__ is None:
        return None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if "ignored_paths" in frame.f_locals:  # of fairseq.data.data_utils
        names = ",".join(sorted(frame.f_locals["ignored_paths"]))
        return (
            f"dataset.valid_subset does not name {names}, which {frame.f_locals['train_cfg'].task.data} has: "
            "name them (valid,valid1), or set dataset.ignore_unused_valid_subsets=true"
        )
    if not str(frame.f_globals.get("__name__")).startswith("fairseq_cli."):
        return None
    if isinstance(error, KeyError) and "stats" in frame.f_locals:  # after a validation
        measured = ", ".join(map(str, frame.f_locals["stats"]))
        return f"checkpoint.best_checkpoint_metric={error.args[0]}: validation measures {measured}; take one"
    return str(error) or None if isinstance(error, AssertionError) else None  # such as "--path required"


COMMA = re.compile(r"Ambiguous value for argument '(.+?)'$", re.M)
GROUP = re.compile(r"Could not override '(\w+)'\. No match in the defaults list")


def wrong_override(error: Any) -> str | None:
    """What is wrong with an override that hydra cannot read."""
    if hasattr(error, "override"):
        return (
            f"{error.override}: write an override as SECTION.KEY=VALUE, without dashes before it and spaces "
            "around =, and text with other characters as KEY=\"'a (b)'\""
        )
    if comma := COMMA.search(str(error)):
        return f"{comma[1]}: write a list as KEY=[a,b], text with a comma as KEY=\"'a,b'\""
    if group := GROUP.search(str(error)):
        return f"{group[1]}: is a section; write {group[1]}._name=VALUE"
    return None


def _of_av_ssl(error: BaseException) -> bool:
    """Whether it is a `DataError`, or a `ValueError` that a `raise` of av_ssl made."""
    if any(kind.__module__ == "av_ssl.errors" for kind in type(error).__mro__):
        return True
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return False
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    code = linecache.getline(frame.f_code.co_filename, line).strip()
    return str(frame.f_globals.get("__name__")).startswith("av_ssl.") and code.startswith("raise ")


def wrong_setting(error: Any, section: str | None = None) -> str:
    """An error of omegaconf's: the key, what is wrong with it and what to do."""
    key = ".".join(filter(None, (section, str(error.full_key or error.key or ""))))
    if "." not in key and (section := section_of_type(error.object_type)):  # it was copied out of its section
        key = f"{section}.{key}"
    if type(error).__name__ == NOT_SET:
        value = plug_in() if key == "common.user_dir" else "VALUE"
        return f"{key} is not set: add {key}={value} to the command"
    if isinstance(error.object_type, type) and dataclasses.is_dataclass(error.object_type):
        name = key.rpartition(".")[2]
        known = [field.name for field in dataclasses.fields(error.object_type)]
        if name not in known:
            return f"{key}: {error.object_type.__name__} has no such key; {nearest(name, known)}"
    lines = str(error.msg or error).splitlines() or [type(error).__name__]
    if "is not a subclass of ListConfig" in lines[0]:
        return f"{key}: needs a list: {key}=[VALUE]"
    return f"{key}: {lines[0]}"


def section_of_type(kind: Any) -> str | None:
    """The section whose registered dataclasses include ``kind``; None if there is none."""
    from fairseq import models, registry, tasks

    registries = {"task": tasks.TASK_DATACLASS_REGISTRY, "model": models.MODEL_DATACLASS_REGISTRY}
    registries |= {name: parts["dataclass_registry"] for name, parts in registry.REGISTRIES.items()}
    return next((name for name, known in registries.items() if kind in known.values()), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """The advice for a name that is not among the known ones."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else "leave it out, or see av-ssl options"


def plug_in() -> str:
    """Folder of av_ssl for `common.user_dir`; it is not imported."""
    spec = importlib.util.find_spec("av_ssl")
    return (spec.submodule_search_locations or ["av_ssl"])[0] if spec is not None else "av_ssl"


def patch_error_report(module: ModuleType) -> None:
    """Let `hydra._internal.utils` end a failed job with one line, or else with the job's own traceback."""
    stock: Callable[[Callable[[], Any]], Any] = module.run_and_report

    def run_and_report(job: Callable[[], Any]) -> Any:
        def run() -> Any:
            try:
                return job()
            except Exception as error:
                text = None if module._is_env_set(FULL_ERROR) else one_line(error)
                if text is not None:
                    print(f"error: {text}", file=sys.stderr)
                elif module._is_env_set(FULL_ERROR) or isinstance(error, module.CompactHydraException):
                    raise  # hydra itself reports mistakes in its own language well
                else:
                    traceback.print_exc()
                sys.exit(1)

        return stock(run)

    module.run_and_report = run_and_report  # type: ignore[attr-defined]


def report_in_one_line(_: ModuleType | None = None) -> None:
    """Let the commands that hydra does not start (`fairseq-generate`, ...) end with one line, too."""
    if not Path(sys.argv[0]).name.startswith("fairseq-") or os.environ.get(FULL_ERROR):
        return
    stock = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        text = one_line(error)
        if text is None:
            stock(kind, error, trace)
        else:
            print(f"error: {text}", file=sys.stderr)

    sys.excepthook = report


# -- options and keys that do not exist ----------------------------------------------------------------------


CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.{200,})\)")
"""Of more names than one wants to read."""
QUOTED = re.compile(r"'?([\w.-]+)'?")


def explain_options(module: ModuleType) -> None:
    """Let the parsers of `fairseq.options` name the nearest option, without 130 lines of usage."""
    stock: Callable[..., Any] = module.get_parser

    @functools.wraps(stock)
    def get_parser(*args: Any, **kwargs: Any) -> Any:
        parser = stock(*args, **kwargs)

        def error(message: str) -> NoReturn:
            words = message.split()
            known = list(parser._option_string_actions)
            if message.startswith("unrecognized arguments"):
                unknown = [word.partition("=")[0] for word in words if word.startswith("--")]
                message += "".join(f"; {word}: {nearest(word, known)}" for word in unknown)
            elif "invalid choice" in message and "--user-dir" not in " ".join(sys.argv):
                message = f"{message.partition(' (choose')[0]}: add --user-dir {plug_in()}, if it is av_ssl's"
            elif (choice := CHOICE.search(message)) is not None:
                message = (
                    f"{message.partition(' (choose')[0]}: {nearest(choice[1], QUOTED.findall(choice[2]))}"
                )
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)

        parser.error = error
        return parser

    module.get_parser = get_parser  # type: ignore[attr-defined]


def refuse_unknown_keys(structure: Any, cfg: Any) -> None:
    """Raise `Mistake`, with the nearest key, for a key that a section lacks; `structure` is its dataclass."""
    if not dataclasses.is_dataclass(structure):
        return
    known = [field.name for field in dataclasses.fields(structure)]
    for key in map(str, cfg):
        if key not in known:
            kind = structure if isinstance(structure, type) else type(structure)
            name = cfg.get("_name") or kind.__name__
            raise Mistake(f"{section_of(cfg, key)}: {name} has no such key; {nearest(key, known)}")


def refuse_key_without_section(override: Any, cfg: Any) -> None:
    """Raise `Mistake` for a hydra override that begins with no section: fairseq would pass it over."""
    key: str = override.key_or_group
    first, _, rest = key.partition(".")
    if first in cfg or not ("task" in cfg and "model" in cfg):  # the latter is not the recipe of a training
        return
    if rest:
        raise Mistake(f"{key}: there is no section {first}; {nearest(first, map(str, cfg))}")
    parts = {str(section): cfg[section] for section in cfg}
    known = {str(name): section for section, part in parts.items() if hasattr(part, "keys") for name in part}
    near = difflib.get_close_matches(key, known, n=1)
    fix = f"did you mean {known[near[0]]}.{near[0]}?" if near else f"put one before it, such as task.{key}"
    raise Mistake(f"{key}: has no section; {fix}")


def section_of(cfg: Any, key: str = "") -> str:
    """A key with the section that it is in, such as `model.dropout`."""
    section = cfg._key() if hasattr(cfg, "_key") else None
    return ".".join(filter(None, (str(section or ""), key)))


def check_names(module: ModuleType) -> None:
    """Let `fairseq.dataclass.initialize` refuse names that do not exist and numbers out of range."""
    from av_ssl_fairseq_hook.ranges import check_values  # which imports this module

    stock: Callable[[Any], None] = module.add_defaults

    def add_defaults(cfg: Any) -> None:
        stock(cfg)
        from fairseq import models, registry, tasks, utils
        from omegaconf import OmegaConf

        if "common" not in cfg or OmegaConf.is_missing(cfg.common, "user_dir"):
            return  # not the configuration of a command
        folder = cfg.common.user_dir
        if folder and os.path.abspath(folder) not in getattr(utils.import_user_module, "memo", ()):
            return  # hydra's first call; the second one follows the import
        names: dict[str, Any] = {key: each["registry"] for key, each in registry.REGISTRIES.items()}
        names |= {"task": tasks.TASK_REGISTRY}
        names |= {"model": models.ARCH_MODEL_NAME_REGISTRY | models.MODEL_REGISTRY}
        for section, known in names.items():
            part: Any = cfg[section] if section in cfg and cfg[section] is not None else {}
            name = part if isinstance(part, str) else part._name if "_name" in part else None
            if name and name not in known:
                ours = f"if it is av_ssl's, set common.user_dir={plug_in()}"
                fix = nearest(name, known) if folder else ours
                raise Mistake(f"{section}._name={name} is not registered; {fix}")
        check_values(cfg)

    stock_init: Callable[[str], None] = module.hydra_init

    def hydra_init(cfg_name: str = "config") -> None:
        if Path(sys.argv[0]).name == "fairseq-hydra-train" and cfg_name != "config":  # that is fairseq's own
            from hydra._internal.utils import get_args

            check_recipe(get_args().config_dir, cfg_name)
        stock_init(cfg_name)

    module.add_defaults = add_defaults  # type: ignore[attr-defined]
    module.hydra_init = hydra_init  # type: ignore[attr-defined]


def check_options(module: ModuleType) -> None:
    """Let `fairseq.dataclass.utils` refuse options of commands without hydra that are out of range."""
    from av_ssl_fairseq_hook.ranges import check_values  # which imports this module

    stock: Callable[[Any], Any] = module.convert_namespace_to_omegaconf

    @functools.wraps(stock)
    def convert(args: Any) -> Any:
        cfg = stock(args)
        check_values(cfg)
        return cfg

    module.convert_namespace_to_omegaconf = convert  # type: ignore[attr-defined]


def check_recipe(folder: str | None, name: str) -> None:
    """Raise `Mistake` for a recipe that does not exist, for which fairseq would take its bare defaults."""
    if folder is None or Path(folder, f"{name}.yaml").is_file():
        return
    known = sorted(path.stem for path in Path(folder).glob("*.yaml") if not path.stem.startswith("_"))
    if not known:
        raise Mistake(f"--config-dir {folder}: there is no such folder, or it has no recipes (.yaml)")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise Mistake(f"--config-name {name}: {folder} has no {name}.yaml; {hint}")


# -- recipes for another machine or another length -----------------------------------------------------------


def check_devices(module: ModuleType) -> None:
    """Let `fairseq.distributed.utils` end with the fix where a recipe wants more GPUs than there are."""
    stock: Callable[[Any], None] = module._infer_single_node_init

    def infer_single_node_init(cfg: Any) -> None:
        wanted, there = cfg.distributed_world_size, module.torch.cuda.device_count()
        if wanted > there:
            on_cpu = "" if there else " common.cpu=true common.fp16=false"
            raise Mistake(
                f"distributed_training.distributed_world_size={wanted}, but torch finds {there} GPUs: "
                f"set distributed_training.distributed_world_size={max(1, there)}{on_cpu}"
            )
        stock(cfg)

    module._infer_single_node_init = infer_single_node_init  # type: ignore[attr-defined]


def check_training(module: ModuleType) -> None:
    """Let `fairseq.trainer` refuse, with the fix, what would fail deep inside or train nothing."""
    stock: Callable[..., None] = module.Trainer.__init__

    @functools.wraps(stock)
    def init(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:
        if cfg.common.fp16 and (cfg.common.cpu or not module.torch.cuda.is_available()):
            raise Mistake(
                "common.fp16=true needs a GPU, and none is used: set common.cpu=true common.fp16=false"
            )
        check_schedule(cfg)
        stock(self, cfg, *args, **kwargs)

    module.Trainer.__init__ = init


WARMUP = ("warmup_steps", "warmup_updates")
AFTER_WARMUP = ("hold_steps", "decay_steps", "lr_period_updates")


def check_schedule(cfg: Any) -> None:
    """Raise `Mistake` where the encoder stays frozen to the end, since a recipe's schedule is longer than the
    run; warn where only the warm-up does not fit.

    The text has the same schedule scaled to the run.
    """
    updates = cfg.optimization.max_update
    schedule: Any = cfg.lr_scheduler or {}  # in omegaconf 2.0, `get` of a key that a struct lacks is an error
    model: Any = cfg.model or {}
    ratio = schedule.phase_ratio if "phase_ratio" in schedule else None
    if ratio is not None:
        if int(updates * ratio[2]) < 1:
            raise Mistake(
                f"optimization.max_update={updates}: no update is left for the last stage of "
                f"lr_scheduler.phase_ratio={list(ratio)}; train longer, or change the shares"
            )
        return
    steps = {key: schedule[key] for key in (*WARMUP, *AFTER_WARMUP) if key in schedule and schedule[key] > 0}
    warmup = sum(value for key, value in steps.items() if key in WARMUP)
    total = sum(steps.values())
    if "total_num_update" in schedule and schedule.total_num_update > total:  # it includes the warm-up
        steps["total_num_update"] = total = int(schedule.total_num_update)
    frozen = model.freeze_finetune_updates if "freeze_finetune_updates" in model else 0
    if not 0 < updates < total or (updates >= warmup and frozen < updates):
        return
    stated = {f"lr_scheduler.{key}": value for key, value in steps.items()}
    if frozen:
        stated["model.freeze_finetune_updates"] = frozen
    scaled = " ".join(f"{key}={round(value * updates / total)}" for key, value in stated.items())
    problem = (
        f"optimization.max_update={updates} is too short for the recipe's schedule of {total} updates "
        f"({', '.join(f'{key}={value}' for key, value in stated.items())}); scaled to it: {scaled}"
    )
    if frozen >= updates:
        raise Mistake(problem)
    logger.warning("the learning rate does not reach its peak: %s", problem)
