"""Pre-training, recognition and classification.

Importing this package registers all tasks, models, criterions and optimizers with fairseq.
"""

import av_ssl.classification.classifier
import av_ssl.classification.criterion
import av_ssl.classification.lupi
import av_ssl.optim
import av_ssl.recognition.distillation
import av_ssl.recognition.heads
import av_ssl.recognition.hybrid_criterion
import av_ssl.tasks.av_hubert
import av_ssl.tasks.classification
import av_ssl.tasks.pretraining
import av_ssl.tasks.recognition  # noqa: F401
from av_ssl import methods

methods.register_all()
