"""Fits of generated tables: every one is published, or refused for a reason in the data."""
