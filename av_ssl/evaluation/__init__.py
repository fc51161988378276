"""Scores of trained classifiers: speaker verification, class recognition."""
