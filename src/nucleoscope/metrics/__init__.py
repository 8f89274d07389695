"""Metrics as named tuples."""
