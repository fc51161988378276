"""Models, one file a method; importing this package registers them with fairseq."""

from av_ssl.compat import prepare

prepare()
