"""Small synthetic videos of a street with ground truth: people walk, cross and hide behind posts; the camera pans.

The demo trains on them and tests track them. They are drawn deterministically from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from track.formats.mot import PEDESTRIAN, write_info

WIDTH, HEIGHT = 320, 240  # of the image, pixels
STREET_WIDTH, STREET_HEIGHT = 480, HEIGHT + 8  # of the background that the camera pans over, pixels
FRAME_RATE = 15
Box = tuple[float, float, float, float]


@dataclass
class Person:
    """A pedestrian with feet at (x, y).

    x, y, height: pixels of the street. speed: pixels per frame, negative to the left. phase: of the gait, radians.
    colours: RGB of skin, shirt and trousers.
    """

    x: float
    y: float
    height: float
    speed: float
    phase: float
    colours: tuple[tuple[int, ...], ...]

    @property
    def box(self) -> Box:
        """Left, top, right and bottom of the drawn figure, pixels of the street."""
        half = 0.19 * self.height
        return self.x - half, self.y - self.height, self.x + half, self.y


def make_dataset(root: str | Path, sequences: int, frames: int, seed: int = 0) -> Path:
    """Write `sequences` MOTChallenge folders (seqinfo.ini, img1/, gt/gt.txt, gmc.txt) below `root` and return it."""
    for number in range(sequences):
        make_sequence(Path(root) / f"street-{seed:02d}-{number:02d}", frames, np.random.default_rng((seed, number)))
    return Path(root)


def make_sequence(folder: Path, frames: int, rng: np.random.Generator) -> None:
    """Write one sequence. Ground-truth rows of people less than 10 % visible have flag 0."""
    (folder / "img1").mkdir(parents=True, exist_ok=True)
    (folder / "gt").mkdir(exist_ok=True)
    street = draw_street(rng)
    posts = sorted(rng.uniform(20, STREET_WIDTH - 20, 4))
    people = [_person(rng, rng.uniform(0, STREET_WIDTH)) for _ in range(int(rng.integers(6, 10)))]
    phase = rng.uniform(0, 2 * np.pi)
    period = rng.uniform(80, 160)  # of the pan, frames
    truth: list[str] = []
    affines: list[str] = []
    previous = None
    for frame in range(1, frames + 1):
        pan = (STREET_WIDTH - WIDTH) / 2 * (1 + np.sin(phase + frame / period * 2 * np.pi)) * 0.98
        left = min(max(int(pan + rng.normal(0, 0.6)), 0), STREET_WIDTH - WIDTH)
        top = min(max(int(4 + rng.normal(0, 0.6)), 0), STREET_HEIGHT - HEIGHT)
        _draw_frame(street, people, posts, left, top, rng).save(folder / "img1" / f"{frame:06d}.jpg", quality=90)
        for identity, person in enumerate(people, 1):
            truth += _truth_row(frame, identity, person, _visibility(person, people, posts), left, top)
        dx, dy = (0, 0) if previous is None else (previous[0] - left, previous[1] - top)
        affines.append(f"{frame},1,0,{dx},0,1,{dy}\n")
        previous = left, top
        _walk(people, rng)
    (folder / "gt/gt.txt").write_text("".join(truth))
    (folder / "gmc.txt").write_text("".join(affines))
    write_info(folder, FRAME_RATE, frames, WIDTH, HEIGHT)


def draw_street(rng: np.random.Generator) -> Image.Image:
    """The background, `STREET_WIDTH` by `STREET_HEIGHT`: sky, houses with windows, bushes, road and pavement."""
    image = Image.new("RGB", (STREET_WIDTH, STREET_HEIGHT), (168, 200, 226))
    pen = ImageDraw.Draw(image)
    left = 0
    while left < STREET_WIDTH:
        width, top = int(rng.integers(50, 90)), int(rng.integers(10, 50))
        wall = tuple(int(c) for c in rng.integers(110, 200, 3))
        pen.rectangle((left, top, left + width, 130), wall)
        glass = tuple(int(c) for c in rng.integers(50, 110, 3))
        for x in range(left + 8, left + width - 12, 18):
            for y in range(top + 10, 118, 26):
                pen.rectangle((x, y, x + 9, y + 13), glass)
        left += width
    pen.rectangle((0, 128, STREET_WIDTH, STREET_HEIGHT), (142, 140, 136))
    for x in range(0, STREET_WIDTH, 24):
        pen.line((x, 128, x - 40, STREET_HEIGHT), (128, 126, 122))
    for x in rng.uniform(0, STREET_WIDTH, 6):
        size = rng.uniform(10, 22)
        pen.ellipse((x - size, 130 - size, x + size, 136), (60, int(rng.integers(95, 130)), 62))
    return image


def draw_person(pen: ImageDraw.ImageDraw, person: Person, left: float, top: float) -> None:
    """Draw head, body and swinging arms and legs into an image whose corner is at (left, top) of the street."""
    x, y, h = person.x - left, person.y - top, person.height
    skin, shirt, trousers = person.colours
    swing = 0.13 * h * np.sin(person.phase)
    for side in (swing, -swing):
        pen.line((x, y - 0.48 * h, x + side, y), trousers, max(2, round(0.08 * h)))
        pen.line((x, y - 0.78 * h, x - 1.1 * side, y - 0.45 * h), skin, max(2, round(0.05 * h)))
    pen.rounded_rectangle((x - 0.12 * h, y - 0.84 * h, x + 0.12 * h, y - 0.44 * h), 0.05 * h, shirt)
    pen.ellipse((x - 0.075 * h, y - h, x + 0.075 * h, y - 0.84 * h), skin)


def _draw_frame(
    street: Image.Image, people: list[Person], posts: list[float], left: int, top: int, rng: np.random.Generator
) -> Image.Image:
    image = street.crop((left, top, left + WIDTH, top + HEIGHT))
    pen = ImageDraw.Draw(image)
    for person in sorted(people, key=lambda p: p.y):
        draw_person(pen, person, left, top)
    for post in posts:
        pen.rectangle((post - 4 - left, 40 - top, post + 4 - left, HEIGHT), (70, 74, 80))
        pen.ellipse((post - 9 - left, 30 - top, post + 9 - left, 48 - top), (226, 220, 178))
    noisy = np.asarray(image, np.float32) * rng.normal(1, 0.02) + rng.normal(0, 4, (HEIGHT, WIDTH, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _person(rng: np.random.Generator, x: float) -> Person:
    depth = rng.uniform(0, 1)
    clothes = [tuple(int(c) for c in rng.integers(20, 235, 3)) for _ in range(2)]
    skin = tuple(int(c * rng.uniform(0.55, 1)) for c in (236, 196, 168))
    speed = rng.choice([-1, 1]) * rng.uniform(0.8, 2.0) * (0.6 + 0.6 * depth)
    return Person(x, 160 + 72 * depth, 50 + 55 * depth, speed, rng.uniform(0, 6), (skin, *clothes))


def _walk(people: list[Person], rng: np.random.Generator) -> None:
    """Move every person by one frame. People turn round at the ends of the street, and at random."""
    for person in people:
        if not 0 < person.x + person.speed < STREET_WIDTH:
            person.speed = abs(person.speed) * (1 if person.x < STREET_WIDTH / 2 else -1)
        elif rng.random() < 0.004:
            person.speed = -person.speed
        person.x += person.speed * rng.uniform(0.8, 1.2)
        person.phase += 0.16 * abs(person.speed) * 80 / person.height


def _visibility(person: Person, people: list[Person], posts: list[float]) -> float:
    """The fraction, 0 to 1, of a person's box that neither posts nor nearer people cover, sampled at 20 columns."""
    left, top, right, bottom = person.box
    columns = np.linspace(left, right, 20)
    behind_post = np.zeros(20, bool)
    for post in posts:
        behind_post |= abs(columns - post) <= 4
    visible = (~behind_post).astype(float)
    for other in people:
        if other.y > person.y:
            x1, y1, x2, y2 = other.box
            covered = max(0.0, min(bottom, y2) - max(top, y1)) / (bottom - top)
            visible[(columns >= x1) & (columns <= x2)] *= 1 - covered
    return float(visible.mean())


def _truth_row(frame: int, identity: int, person: Person, visibility: float, left: int, top: int) -> list[str]:
    """The ground-truth row of the part of a person inside the image, none if that is less than half."""
    x1, y1, x2, y2 = np.array(person.box) - [left, top, left, top]
    inside = min(x2, WIDTH) - max(x1, 0)
    if inside < 0.5 * (x2 - x1):
        return []
    x1 = max(x1, 0)
    x2 = min(x2, WIDTH)
    y2 = min(y2, HEIGHT)
    box = f"{x1 + 1:.1f},{y1 + 1:.1f},{x2 - x1:.1f},{y2 - y1:.1f}"
    return [f"{frame},{identity},{box},{int(visibility >= 0.1)},{PEDESTRIAN},{visibility:.2f}\n"]
