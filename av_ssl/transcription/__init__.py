"""Transcripts of clips that have none, and what self-training makes of them."""
