"""Ratios against ceilings measured in the same run: ``python -m benchmarks [NAME ...]``."""
