"""Pre-training and recognition. Importing this package registers tasks, models, criterions with fairseq."""

from av_ssl.compat import prepare

prepare()

from av_ssl import criterions  # noqa: E402, F401
from av_ssl.models import av2vec, ctc, seq2seq  # noqa: E402, F401
from av_ssl.tasks import pretraining, recognition  # noqa: E402, F401
