"""Losses, one file each; importing this package registers them with fairseq."""

import importlib
import pkgutil

from av_ssl.compat import prepare

prepare()
for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")
