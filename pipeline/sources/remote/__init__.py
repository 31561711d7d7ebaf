"""Sources at addresses and in buckets, and sources named by a pattern."""
