"""Small drawn videos of a street, with ground truth: people walk, cross, hide behind posts; the camera pans.

What the demo trains on and what tests track; everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from track.formats.mot import write_info

WIDTH, HEIGHT, WORLD, FRAME_RATE = 320, 240, 480, 15
Box = tuple[float, float, float, float]


@dataclass
class Person:
    """Someone on the pavement: feet at (x, y) in world pixels, walking at `speed` pixels a frame."""

    x: float
    y: float
    height: float
    speed: float
    phase: float
    colours: tuple[tuple[int, ...], ...]  # skin, shirt, trousers

    @property
    def box(self) -> Box:
        """Left, top, right, bottom in world pixels, around the drawn figure."""
        half = 0.19 * self.height
        return self.x - half, self.y - self.height, self.x + half, self.y


def make_dataset(root: str | Path, sequences: int, frames: int, seed: int = 0) -> Path:
    """Write `sequences` MOTChallenge folders (seqinfo.ini, img1/, gt/gt.txt, gmc.txt) below root and return it."""
    for number in range(sequences):
        make_sequence(Path(root) / f"street-{seed:02d}-{number:02d}", frames, np.random.default_rng((seed, number)))
    return Path(root)


def make_sequence(folder: Path, frames: int, rng: np.random.Generator) -> None:
    """One video's folder. Ground truth rows hidden to less than a tenth carry flag 0."""
    (folder / "img1").mkdir(parents=True, exist_ok=True)
    (folder / "gt").mkdir(exist_ok=True)
    street, posts = draw_street(rng), sorted(rng.uniform(20, WORLD - 20, 4))
    people = [_person(rng, rng.uniform(0, WORLD)) for _ in range(int(rng.integers(6, 10)))]
    truth, camera, before = [], [], None
    pan, swing = rng.uniform(0, 2 * np.pi), rng.uniform(80, 160)
    for frame in range(1, frames + 1):
        left = (WORLD - WIDTH) / 2 * (1 + np.sin(pan + frame / swing * 2 * np.pi)) * 0.98
        left, top = int(left + rng.normal(0, 0.6)), int(4 + rng.normal(0, 0.6))
        left, top = min(max(left, 0), WORLD - WIDTH), min(max(top, 0), 8)
        _draw_frame(street, people, posts, left, top, rng).save(folder / "img1" / f"{frame:06d}.jpg", quality=90)
        truth += [_row(frame, i, p, _visible(i, people, posts), left, top) for i, p in enumerate(people, 1)]
        shift = (0, 0) if before is None else (before[0] - left, before[1] - top)
        camera.append(f"{frame},1,0,{shift[0]},0,1,{shift[1]}\n")
        before = left, top
        _walk(people, rng)
    (folder / "gt/gt.txt").write_text("".join(row for row in truth if row))
    (folder / "gmc.txt").write_text("".join(camera))
    write_info(folder, FRAME_RATE, frames, WIDTH, HEIGHT)


def draw_street(rng: np.random.Generator) -> Image.Image:
    """(WORLD, HEIGHT + 8) the background: sky, houses with windows, bushes, road and pavement."""
    image = Image.new("RGB", (WORLD, HEIGHT + 8), (168, 200, 226))
    pen = ImageDraw.Draw(image)
    left = 0
    while left < WORLD:
        width, top = int(rng.integers(50, 90)), int(rng.integers(10, 50))
        wall = tuple(int(c) for c in rng.integers(110, 200, 3))
        pen.rectangle((left, top, left + width, 130), wall)
        glass = tuple(int(c) for c in rng.integers(50, 110, 3))
        for x in range(left + 8, left + width - 12, 18):
            for y in range(top + 10, 118, 26):
                pen.rectangle((x, y, x + 9, y + 13), glass)
        left += width
    pen.rectangle((0, 128, WORLD, HEIGHT + 8), (142, 140, 136))
    for x in range(0, WORLD, 24):
        pen.line((x, 128, x - 40, HEIGHT + 8), (128, 126, 122))
    for x in rng.uniform(0, WORLD, 6):
        size = rng.uniform(10, 22)
        pen.ellipse((x - size, 130 - size, x + size, 136), (60, int(rng.integers(95, 130)), 62))
    return image


def draw_person(pen: ImageDraw.ImageDraw, person: Person, left: float, top: float) -> None:
    """Head, body, swinging arms and legs; feet at the person's place less the camera's."""
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
    """A step of everybody; who reaches the end of the street turns round, as some do at any moment."""
    for person in people:
        outside = not 0 < person.x + person.speed < WORLD
        if outside or rng.random() < 0.004:
            person.speed = abs(person.speed) * (1 if person.x < WORLD / 2 else -1) if outside else -person.speed
        person.x += person.speed * rng.uniform(0.8, 1.2)
        person.phase += 0.16 * abs(person.speed) * 80 / person.height


def _visible(index: int, people: list[Person], posts: list[float]) -> float:
    """The part of a person's box, 0 to 1, that neither a post nor somebody nearer covers, in tenths of its width."""
    me = people[index - 1]
    left, top, right, bottom = me.box
    columns = np.linspace(left, right, 20)
    hidden = np.zeros(20, bool)
    for post in posts:
        hidden |= abs(columns - post) <= 4
    shown = (~hidden).astype(float)
    for other in people:
        if other.y > me.y:
            x1, y1, x2, y2 = other.box
            covered = max(0.0, min(bottom, y2) - max(top, y1)) / (bottom - top)
            shown[(columns >= x1) & (columns <= x2)] *= 1 - covered
    return float(shown.mean())


def _row(frame: int, identity: int, person: Person, visible: float, left: int, top: int) -> str:
    """A ground truth row of the part of the person inside the picture, empty where that is less than half."""
    x1, y1, x2, y2 = np.array(person.box) - [left, top, left, top]
    inside = min(x2, WIDTH) - max(x1, 0)
    if inside < 0.5 * (x2 - x1):
        return ""
    x1, x2, y2 = max(x1, 0), min(x2, WIDTH), min(y2, HEIGHT)
    columns = f"{x1 + 1:.1f},{y1 + 1:.1f},{x2 - x1:.1f},{y2 - y1:.1f}"
    return f"{frame},{identity},{columns},{int(visible >= 0.1)},1,{visible:.2f}\n"
