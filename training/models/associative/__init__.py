"""The member `associative`, which the presets are made of, and its parts."""

from hourglass.training.models.associative.associative import Associative, AssociativeConfig

__all__ = ["Associative", "AssociativeConfig"]
