"""Pictures for rule photo: textures and mosaics with edited copies, and many small pictures of simple scenes."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

Pixels = NDArray[np.uint8]
Chance = np.random.Generator

SIDE = 160
TURN = Image.Transpose


def patterns(seed: int, count: int = 180) -> list[Image.Image]:
    """Draw textures and mosaics of 160 x 160: noise, waves, cells, and tiles of three kinds, in turn."""
    rng = np.random.default_rng(seed)
    drawn = (_noise, _waves, _cells, _tiles, _fine_tiles, _spots)
    made = [np.clip(drawn[number % len(drawn)](rng), 0, 255).astype(np.uint8) for number in range(count)]
    return [Image.fromarray(pixels) for pixels in made]


def _spectrum(rng: Chance, planes: int) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    noise = np.fft.fft2(rng.normal(size=(planes, SIDE, SIDE)))
    return noise, np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)) * SIDE


def _noise(rng: Chance) -> NDArray[np.float64]:
    noise, frequency = _spectrum(rng, 3)
    field = np.fft.ifft2(noise / (1 + frequency) ** rng.uniform(0.3, 1.3)).real
    return np.asarray((field / field.std() * 45 + 128 + rng.normal(0, 30, (3, 1, 1))).transpose(1, 2, 0))


def _waves(rng: Chance) -> NDArray[np.float64]:
    down, across = np.mgrid[:SIDE, :SIDE] / SIDE
    total = np.zeros((SIDE, SIDE, 3)) + rng.uniform(60, 190, 3)
    for _ in range(6):
        angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(2, 9), rng.uniform(0, 6)
        wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * across + np.sin(angle) * down) + phase)
        total += wave[..., None] * rng.normal(size=3) * 25
    return total


def _cells(rng: Chance) -> NDArray[np.float64]:
    down, across = np.mgrid[:SIDE, :SIDE] / SIDE
    centres = rng.random((int(rng.integers(30, 250)), 2))
    nearest = ((down[..., None] - centres[:, 0]) ** 2 + (across[..., None] - centres[:, 1]) ** 2).argmin(axis=2)
    return np.asarray(rng.uniform(0, 255, (len(centres), 3))[nearest])


def _tiles(rng: Chance) -> NDArray[np.float64]:
    return _grid(rng.uniform(0, 255, (int(rng.integers(4, 12)),) * 2 + (3,)))


def _fine_tiles(rng: Chance) -> NDArray[np.float64]:
    cells = int(rng.integers(10, 28))
    light = rng.uniform(20, 235, (cells, cells, 1)) + rng.normal(0, 20, (cells, cells, 3))
    return _grid(light) + rng.normal(0, 6, (SIDE, SIDE, 1))


def _spots(rng: Chance) -> NDArray[np.float64]:
    noise, frequency = _spectrum(rng, 1)
    field = np.fft.ifft2(noise * np.exp(-((frequency / rng.uniform(4, 10)) ** 2))).real[0]
    field /= field.std()
    inside = (field > rng.uniform(-0.5, 0.5))[..., None]
    return np.asarray(np.where(inside, rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)) + field[..., None] * 15)


def _grid(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    place = np.arange(SIDE) * len(cells) // SIDE
    return np.asarray(cells[place][:, place])


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compress and read again."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def crop(image: Image.Image, share: float) -> Image.Image:
    """Cut out the middle, by its share of each side."""
    size = round(image.width * share)
    left = (image.width - size) // 2
    return image.crop((left, left, left + size, left + size))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded again": lambda image: jpeg(image, 40),
    "resized": lambda image: image.resize((90, 90), Image.Resampling.BICUBIC),
    "cropped to 90 %": lambda image: crop(image, 0.9),
    "mirrored": lambda image: image.transpose(TURN.FLIP_LEFT_RIGHT),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "turned by 90": lambda image: image.transpose(TURN.ROTATE_90),
    "turned by 180": lambda image: image.transpose(TURN.ROTATE_180),
    "turned by 270": lambda image: image.transpose(TURN.ROTATE_270),
    "turned by 5": lambda image: image.rotate(5, Image.Resampling.BICUBIC),
    "cropped to 75 %": lambda image: crop(image, 0.75),
}


def crop_area(image: Image.Image, left: float, top: float) -> Image.Image:
    """Cut out 75 % of the area; 0 to 1 is where, from the left and from the top."""
    size = round(image.width * 0.75**0.5)
    x, y = (round((image.width - size) * place) for place in (left, top))
    return image.crop((x, y, x + size, y + size))


# Copies that are harder to find. What they draw at random differs from picture to picture.
HARDER: dict[str, Callable[[Image.Image, Chance], Image.Image]] = {
    "turned by 5, larger canvas": lambda image, _: image.rotate(5, Image.Resampling.BICUBIC, expand=True),
    "turned by -5, larger canvas": lambda image, _: image.rotate(-5, Image.Resampling.BICUBIC, expand=True),
    "75 % of the area at a corner": lambda image, rng: crop_area(image, *rng.integers(0, 2, 2).tolist()),
    "75 % of the area anywhere": lambda image, rng: crop_area(image, *rng.random(2).tolist()),
    "cropped to 70 %": lambda image, _: crop(image, 0.7),
}


def scenes(seed: int, count: int, side: int = 32) -> Pixels:
    """Draw small pictures: a sky or a dark frame that fades to a ground, and up to three lit, textured shapes.

    Returns:
        (count, side, side, 3) uint8. Some are a bare sky, and such are alike.
    """
    rng = np.random.default_rng(seed)
    return np.concatenate([_scenes(rng, min(1000, count - start), side) for start in range(0, count, 1000)])


def _scenes(rng: Chance, count: int, side: int) -> Pixels:
    down, across = np.mgrid[:side, :side] / side
    top, bottom = rng.uniform(10, 245, (2, count, 1, 1, 3))
    horizon, blur = rng.uniform(0.2, 1.2, (count, 1, 1, 1)), rng.uniform(0.02, 0.6, (count, 1, 1, 1))
    share = 1 / (1 + np.exp(-(down[..., None] - horizon) / blur))
    scene = top * (1 - share) + bottom * share
    scene += _field(rng, count, side) * rng.uniform(0, 25, (count, 1, 1, 1)) * share
    for _ in range(3):
        centre, size = rng.uniform(0.2, 0.8, (2, count, 1, 1)), rng.uniform(0.08, 0.4, (2, count, 1, 1))
        angle, power = rng.uniform(0, np.pi, (count, 1, 1)), rng.choice([2, 4, 8], (count, 1, 1))
        y, x = down - centre[0], across - centre[1]
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        inside = 1 / (
            1 + np.exp(np.minimum(12 * (np.abs(u / size[0]) ** power + np.abs(v / size[1]) ** power - 1), 50))
        )
        colour, light = rng.uniform(10, 245, (count, 1, 1, 3)), rng.normal(0, 60, (count, 1, 1))
        texture = _field(rng, count, side) * rng.uniform(5, 45, (count, 1, 1, 1))
        shown = (inside * (rng.random((count, 1, 1)) < 0.75))[..., None]
        scene = scene * (1 - shown) + (colour + (light * u)[..., None] * 2 + texture) * shown
    return np.asarray(np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255), np.uint8)


def _field(rng: Chance, count: int, side: int) -> NDArray[np.float64]:
    """Draw noise with the spectrum of natural textures: (count, side, side, 1), deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) * side
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, side, side))) / (1 + frequency)).real
    return np.asarray((field / field.std(axis=(1, 2), keepdims=True))[..., None])
