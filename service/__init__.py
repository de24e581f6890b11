"""Hourglass, the service: loads artifacts, scores vectors, explains them, and is scraped."""

VERSION = "0.1.0"
