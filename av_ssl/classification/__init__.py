"""Classification of clips: classifiers, LUPI students, scoring and speaker verification."""
