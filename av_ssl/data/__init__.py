"""Manifest -> samples -> batches.

`manifest` and `labels` read what AV-HuBERT's preparation writes, `reading` and `features` turn files into
arrays, `noise` and `augment` change them, `masking` draws what the student must not see, `dataset` and
`collate` make batches; `class_labels`, `segments` and `classification_dataset` are for classes of whole
clips.
"""
