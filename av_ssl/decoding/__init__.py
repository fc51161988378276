"""Decoders that ``fairseq-generate`` gets through the task's ``build_generator``."""
