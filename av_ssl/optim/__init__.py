"""Optimizers and what models tell them; importing this package registers them with fairseq."""

from av_ssl.compat import prepare

prepare()

from av_ssl.optim import grouped_adam  # noqa: E402, F401
