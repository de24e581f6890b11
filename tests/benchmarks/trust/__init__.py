"""How far answers can be trusted: `python -m tests.benchmarks.trust --help`."""
