"""RAVEn and BRAVEn: the single-stream encoder, and pre-training with two students and two teachers."""
