"""What a baseline is trained and examined on."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.baselines.model import Examples
from pipeline.baselines.parts import Part
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart


class Exam(NamedTuple):
    """What a baseline is trained and examined on.

    Attributes:
        train: examples that samples point into.
        roles: valid, where there is one, and test.
        parts: of each of these roles; the original comes first.
        names: of the classes.
        shape: (height, width, channels) of all pictures.
        train_dropped: images that may be trained on although the split's sanitizing drops them.
    """

    train: Examples
    roles: Mapping[str, Examples]
    parts: Mapping[str, Sequence[Part]]
    names: Sequence[str]
    shape: tuple[int, int, int]
    train_dropped: int = 0


def of_two_classes(spec: BaselinePart, exam: Exam) -> Exam:
    """Make it a question of two classes, where the recipe asks for one of them.

    Raises:
        BaselineError: the class is none of the split's.
    """
    if spec.positive is None:
        return exam
    if spec.positive not in exam.names:
        raise BaselineError(
            f"baseline '{spec.model}' looks for class '{spec.positive}', but split '{spec.split}' has "
            f"{', '.join(exam.names)}. Give one of these as positive."
        )
    place = list(exam.names).index(spec.positive)

    def told(examples: Examples) -> Examples:
        return examples._replace(labels=(examples.labels == place).astype(np.int64))

    roles = {role: told(examples) for role, examples in exam.roles.items()}
    return exam._replace(train=told(exam.train), roles=roles, names=(f"not {spec.positive}", spec.positive))
