"""Benchmarks: what is measured rather than asserted; README.md has the commands."""
