"""Joins that find all pairs of pictures under a rule, and none twice."""
