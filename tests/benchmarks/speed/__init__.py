"""Speed as ratios to what bounds it, and to others who serve the same model; `python -m
tests.benchmarks.speed --help`.
"""
