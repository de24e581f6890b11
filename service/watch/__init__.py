"""Whatever is told of every scoring run."""
