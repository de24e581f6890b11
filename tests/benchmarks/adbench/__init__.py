"""Detection quality on folders of labelled sets in ADBench's npz format; `python -m
tests.benchmarks.adbench --help`.
"""
