"""Models and results for other programs."""
