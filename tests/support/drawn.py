"""Files of random pictures with duplicates of every kind."""

import numpy as np
from making import encoded
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def _near(rng: np.random.Generator, picture: Pixels) -> Pixels:
    """Change a picture a little or a lot, or not at all."""
    noise = rng.normal(0, rng.choice([0, 2, 20, 60]), picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def draw_files(rng: np.random.Generator, count: int) -> dict[str, bytes]:
    """Draw files of two shapes, some constant, some near one another, some equal with other bytes."""
    made: list[Pixels] = []
    for _ in range(count):
        kind = rng.integers(0, 4)
        shape = ((16, 16), (12, 20))[int(rng.integers(0, 2))]
        if kind == 0:
            made.append(np.full(shape, rng.choice([7, 130]), np.uint8))
        elif kind == 1 or not made:
            coarse = rng.integers(0, 256, (4, 4))
            made.append(np.kron(coarse, np.ones((shape[0] // 4, shape[1] // 4))).astype(np.uint8))
        else:
            made.append(_near(rng, made[int(rng.integers(0, len(made)))]))
    levels = rng.integers(0, 2, count) * 9
    return {
        f"{'AB'[i % 2]}/{i}.png": encoded(made[i], compress_level=int(level)) for i, level in enumerate(levels.tolist())
    }
