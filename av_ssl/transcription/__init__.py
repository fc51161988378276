"""Transcripts of clips, and pseudo-labels for self-training made of them."""
