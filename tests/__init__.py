"""Tests: they mirror the packages.

A package itself, so that tests.service does not shadow service.
"""
