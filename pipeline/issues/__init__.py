"""What a person should look at: pictures with a fault, suspect labels and outliers, each with a score from 0 to 1.

`measure.py` measures pixels, and `quality.py` makes scores of the measurements. `labels.py` finds labels that a model
contradicts, and `neighbours.py` the nearest pictures: their labels are compared with those that the model suggests, and
their distances show outliers.
"""
