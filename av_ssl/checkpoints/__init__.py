"""Model files: read and write them, build the model they describe, average them."""
