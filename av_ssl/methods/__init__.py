"""Methods of self-supervised pre-training, one file each: configuration, model and criterion."""

import importlib
import pkgutil


def register_all() -> None:
    """Import every module of this package, which registers its models and criterions with fairseq."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
