"""images -> index -> clusters, and what they say about overlap. Pixels take part in keys only, never in a join."""
