"""Clients of the Open Inference Protocol, as their makers publish them, against the service."""
