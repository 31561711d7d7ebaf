"""images, clusters -> a split that cannot leak: what is linked goes to one role as a whole.

link (images -> groups), pool (who may go where), targets (how many are asked for), stay (who had a role before), assign
(large, then fill: groups -> roles), rows (groups -> rows of the split), account (what came of it).
"""
