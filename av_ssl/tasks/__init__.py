"""Pre-training, recognition, classification.

Importing this package registers tasks, models and criterions with fairseq.
"""

from av_ssl.compat import prepare

prepare()

from av_ssl import criterions, optim  # noqa: E402, F401
from av_ssl.models import av2vec, classifier, ctc, distillav, hybrid, lupi, raven, seq2seq  # noqa: E402, F401

# Not under its own name, which is that of a task's module here.
from av_ssl.models import av_hubert as av_hubert_model  # noqa: E402, F401
from av_ssl.tasks import av_hubert, classification, pretraining, recognition  # noqa: E402, F401
