"""Roles of a split as numpy arrays: shuffled training batches (`feed`) and exported files (`exports`)."""
