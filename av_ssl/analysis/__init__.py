"""What encoders have learned: their layers on disk, similarities, probes, figures."""
