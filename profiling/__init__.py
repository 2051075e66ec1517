"""What a model costs.  Knows no Ray."""
