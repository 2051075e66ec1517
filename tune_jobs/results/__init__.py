"""What a run has found, read from its files; nothing here needs Ray."""
