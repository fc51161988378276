"""Pre-training, recognition and classification.

Importing this package registers all tasks, models, criterions and optimizers with fairseq, and puts a faster
Adam in place of fairseq's.
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
import av_ssl.tasks.recognition
from av_ssl import methods

methods.register_all()
av_ssl.optim.use_fused_adam()
