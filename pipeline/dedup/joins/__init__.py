"""Similarity joins: each finds all similar pairs in one or two sets, exactly once, without comparing every pair."""
