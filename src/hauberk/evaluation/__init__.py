"""Evaluation: units of work, metrics."""
