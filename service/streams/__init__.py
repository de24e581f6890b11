"""The next rows of an entity: its state, its level, its events."""
