"""images, clusters -> splits: who is in which role, in which order, and who is dropped for whom."""
