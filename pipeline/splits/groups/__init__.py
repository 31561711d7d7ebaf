"""Draw a split without leaks: images that clusters link form groups, and each group goes to one role as a whole.

`pool` collects the groups and how many images each role requests; `assign` gives every group a role; `draw` turns that
into the rows of the split.
"""
