"""Bytes and files <-> float32 rows; pure functions."""
