"""Models for others: a folder or a hub, AV-HuBERT's layout, ONNX."""
