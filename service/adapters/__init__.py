"""The detector without our HTTP."""
