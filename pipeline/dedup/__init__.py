"""Duplicate detection: images -> index -> pairs -> clusters -> overlap counts.

Rules turn pixels into index entries. Joins, matching and clustering then work on the index; only rules that verify
their candidates read pixels again.
"""
