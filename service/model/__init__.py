"""What a model file is and what it computes."""
