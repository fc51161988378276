"""Building blocks of the models: front-ends, masking, Transformer encoder."""
