"""Speech recognition: the pre-trained encoder, recognition heads and their losses, search."""
