"""Which model answers, when, and where its files lie."""
