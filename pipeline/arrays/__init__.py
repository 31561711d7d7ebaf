"""Rows of the lake -> numpy arrays in the order of a split. Ids are joined, pixels are only ever gathered."""
