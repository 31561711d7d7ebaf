"""What a person should look at: pictures with a fault, suspect labels and outliers, each with a score from 0 to 1.

`measure.py` measures pixels, and `quality.py` makes scores of the measurements. `labels.py` finds labels that a model
contradicts, and `neighbours.py` the nearest pictures: a second voice on labels, and the distances of outliers.
"""
