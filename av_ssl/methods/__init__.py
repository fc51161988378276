"""Pre-training methods, one file each: configuration, model and loss in reading order."""
