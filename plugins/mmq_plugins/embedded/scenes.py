"""Deterministic scenes: coloured shapes on a plain background, and their picture.

A scene is 64 x 64 pixels with 2 to 5 objects in the cells of a 4 x 4 grid. Every object has one of
6 shapes, 8 colours and 3 sizes. Six (shape, colour) pairs never appear in training; every second
test scene contains one, so a model must generalize by composition.
"""

import io
import math
import random
import zlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Split = Literal["train", "test"]
RGB = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
COLORS: dict[str, RGB] = {
    "red": (215, 40, 40),
    "green": (40, 165, 60),
    "blue": (45, 75, 215),
    "yellow": (235, 215, 50),
    "purple": (140, 50, 165),
    "orange": (240, 130, 30),
    "cyan": (60, 200, 215),
    "pink": (245, 140, 190),
}
RADII = {"small": 3.2, "medium": 5.0, "large": 7.0}  # pixels
SIZES = tuple(RADII)
BACKGROUNDS: dict[str, RGB] = {
    "black": (20, 20, 22),
    "gray": (120, 120, 120),
    "white": (232, 232, 228),
}
GRID = 4
CELL = 16  # pixels
IMAGE_SIZE = GRID * CELL
OBJECT_COUNTS = (2, 3, 3, 4, 4, 5, 5)
HELD_OUT_PAIRS = frozenset(zip(SHAPES, COLORS, strict=False))  # one colour per shape


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object: what it is, its cell, and where in the cell it was drawn (pixels, degrees)."""

    shape: str
    color: str
    size: str
    row: int
    col: int
    x: float
    y: float
    radius: float
    rotation: float

    @property
    def held_out(self) -> bool:
        """Whether this (shape, colour) pair is held out of training."""
        return (self.shape, self.color) in HELD_OUT_PAIRS


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene of a split; the same index gives the same scene and picture."""

    split: Split
    index: int
    background: str
    objects: tuple[SceneObject, ...]


def make_scene(index: int, split: Split = "train") -> Scene:
    """Scene number `index` of a split; even test scenes contain a held-out pair."""
    rng = random.Random(f"{split}-{index}")
    cells = sorted(rng.sample(range(GRID * GRID), rng.choice(OBJECT_COUNTS)))
    # few distinct colours and shapes per scene, for counting and comparing
    colors = rng.sample(list(COLORS), rng.randint(2, 5))
    shapes = rng.sample(SHAPES, rng.randint(2, 4))
    objects = [_make_object(rng, cell, colors, shapes) for cell in cells]
    if split == "test" and index % 2 == 0:
        shape, color = rng.choice(sorted(HELD_OUT_PAIRS))
        position = rng.randrange(len(objects))
        objects[position] = replace(objects[position], shape=shape, color=color)
    return Scene(split, index, rng.choice(list(BACKGROUNDS)), tuple(objects))


def _make_object(
    rng: random.Random, cell: int, colors: list[str], shapes: list[str]
) -> SceneObject:
    shape, color, size = rng.choice(shapes), rng.choice(colors), rng.choice(SIZES)
    while (shape, color) in HELD_OUT_PAIRS:
        color = rng.choice(list(COLORS))
    row, col = divmod(cell, GRID)
    reach = 2.0 if size == "small" else 1.0
    return SceneObject(
        shape=shape,
        color=color,
        size=size,
        row=row,
        col=col,
        x=(col + 0.5) * CELL + rng.uniform(-reach, reach),
        y=(row + 0.5) * CELL + rng.uniform(-reach, reach),
        radius=RADII[size] * rng.uniform(0.93, 1.07),
        rotation=rng.uniform(-12, 12),
    )


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape around the origin, at radius 1."""

    def ring(n: int, start: float, radii: tuple[float, ...]) -> list[tuple[float, float]]:
        angles = [start + 2 * math.pi * i / n for i in range(n)]
        lengths = [radii[i % len(radii)] for i in range(n)]
        pairs = zip(angles, lengths, strict=True)
        return [(length * math.cos(a), length * math.sin(a)) for a, length in pairs]

    up = -math.pi / 2
    if shape == "square":
        return ring(4, math.pi / 4, (1.12,))
    if shape == "diamond":
        return ring(4, up, (1.15, 0.7))
    if shape == "triangle":
        return ring(3, up, (1.15,))
    if shape == "star":
        return ring(10, up, (1.2, 0.48))
    t = 0.38  # half the width of the cross's arms
    quarter = [(-t, -1.0), (t, -1.0), (t, -t)]
    turns = ((1, 0), (0, 1), (-1, 0), (0, -1))  # (cos, sin) of each quarter turn
    return [(x * c - y * s, x * s + y * c) for c, s in turns for x, y in quarter]


def _polygon(o: SceneObject, scale: int) -> list[tuple[float, float]]:
    c, s = math.cos(math.radians(o.rotation)), math.sin(math.radians(o.rotation))
    r = o.radius
    return [
        (scale * (o.x + r * (u * c - v * s)), scale * (o.y + r * (u * s + v * c)))
        for u, v in _outline(o.shape)
    ]


def render(scene: Scene) -> Image.Image:
    """The scene's picture, RGB 64 x 64, with jittered colours and pixel noise."""
    name = f"{scene.split}-{scene.index}"
    rng = random.Random(f"pixels-{name}")

    def jitter(color: RGB, reach: int) -> RGB:
        r, g, b = (max(0, min(255, int(v + rng.uniform(-reach, reach)))) for v in color)
        return r, g, b

    oversample = 4
    side = IMAGE_SIZE * oversample
    image = Image.new("RGB", (side, side), jitter(BACKGROUNDS[scene.background], 10))
    draw = ImageDraw.Draw(image)
    for o in scene.objects:
        fill = jitter(COLORS[o.color], 22)
        if o.shape == "circle":
            x, y, r = o.x * oversample, o.y * oversample, o.radius * oversample
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        else:
            draw.polygon(_polygon(o, oversample), fill=fill)
    small = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.float32)
    noise = np.random.RandomState(zlib.crc32(name.encode())).normal(0, 9, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def encode_jpeg(image: Image.Image) -> bytes:
    """The picture as JPEG bytes; training uses the same compression."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def cell_labels(scene: Scene) -> np.ndarray:
    """The content of each cell, (16, 3): shape, colour and size; the last class is empty."""
    labels = np.empty((GRID * GRID, 3), dtype=np.int64)
    labels[:] = len(SHAPES), len(COLORS), len(SIZES)
    colors = list(COLORS)
    for o in scene.objects:
        labels[o.row * GRID + o.col] = (
            SHAPES.index(o.shape),
            colors.index(o.color),
            SIZES.index(o.size),
        )
    return labels
