"""A Job to its Result."""
