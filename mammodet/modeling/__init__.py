"""Detectors, image head, aggregation; `build.py` turns a config into modules."""
