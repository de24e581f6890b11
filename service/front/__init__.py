"""The fast path before the app; deletable as one folder."""
