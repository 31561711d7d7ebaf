"""Train models on a split and score them: what a split is worth, and how much leakage raises the scores.

`models` has one function per model. `score.score` is the whole: fit, predict, and make rows of the scores table.
"""
