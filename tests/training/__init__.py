"""Tests of training, file by file."""
