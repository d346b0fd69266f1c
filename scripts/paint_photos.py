"""Paint the sample pictures that no photographer had to take, from far to near as painters do.

There are three gestures. A *ramp* of colours fills the sheet from top to bottom; *noise* gives
clouds, waves, rock and sand their grain; a *mask*, the outline of a thing, says where a colour is
laid over what is there already. The same seed paints the same picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

W, H = 640, 480  # pixels of a picture, which is an (H, W, 3) array from 0 to 1
FINE = 3  # outlines are drawn this much larger, so that their edges come out soft
Y, X = np.mgrid[0:H, 0:W]  # row and column of every pixel
Points = Sequence[tuple[float, float]]


def ramp(*stops: tuple[float, Sequence[float]]) -> np.ndarray:
    """A sheet of colours that change from row to row; a stop is a row and its colour."""
    rows, colours = zip(*stops, strict=True)
    return np.stack([np.interp(Y, rows, tone) for tone in zip(*colours, strict=True)], axis=-1)


def noise(rng: np.random.RandomState, size: float, stretch: float = 1, octaves: int = 5):
    """Cloudy noise (H, W) from 0 to 1: blots of `size` pixels, ever finer ones on top of them."""
    total = np.zeros((H, W))
    for octave in range(octaves):
        down, across = H / size * 2**octave, W / (size * stretch) * 2**octave
        blots = rng.rand(max(2, round(down) + 1), max(2, round(across) + 1)).astype(np.float32)
        total += np.asarray(Image.fromarray(blots).resize((W, H), Image.BICUBIC)) / 2**octave
    return (total - total.min()) / np.ptp(total)


def smooth(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high` (or the other way round), and no corner between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def outline(*shapes: Points, blur: float = 0) -> np.ndarray:
    """The mask (H, W) of polygons; `blur` in pixels is how far they lie out of focus."""
    sheet = Image.new('L', (W * FINE, H * FINE))
    for shape in shapes:
        ImageDraw.Draw(sheet).polygon([(x * FINE, y * FINE) for x, y in shape], fill=255)
    return blurred(np.asarray(sheet.resize((W, H), Image.BOX)) / 255, blur)


def blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask, or one channel of a picture, out of focus."""
    image = Image.fromarray((np.clip(mask, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius))) / 255


def arc(x: float, y: float, wide: float, high: float, start: float = 0, end: float = 1):
    """Points of an ellipse around (x, y) from one angle to another, in turns from the right."""
    turns = np.linspace(start, end, 40) * 2 * np.pi
    return [(x + wide * np.cos(t), y - high * np.sin(t)) for t in turns]


def stroke(points: Points, start: float, end: float) -> Points:
    """The outline of a brush stroke along `points`, `start` pixels wide and thinning to `end`."""
    path = np.array(points, dtype=float)
    along = np.gradient(path, axis=0)
    across = along[:, ::-1] * (-1, 1) / np.linalg.norm(along, axis=1, keepdims=True)
    half = across * np.linspace(start, end, len(path))[:, None] / 2
    return [(x, y) for x, y in np.vstack([path + half, (path - half)[::-1]])]


def lay(picture: np.ndarray, colour: np.ndarray | Sequence[float], mask: np.ndarray) -> np.ndarray:
    """Lay a colour, or a sheet of colours, over the picture where the mask is 1."""
    mask = np.clip(mask, 0, 1)[..., None]
    return picture * (1 - mask) + np.asarray(colour) * mask


def clouds(rng: np.random.RandomState, picture: np.ndarray, colour: Sequence[float], low: float):
    """Clouds over the sky, thinning towards the row `low`."""
    return lay(picture, colour, 0.8 * smooth(0.5, 0.9, noise(rng, 80, 3.5)) * smooth(low, 80, Y))


def beach(rng: np.random.RandomState) -> np.ndarray:
    """A beach in the evening, with a palm and an umbrella."""
    sea, shore, sun = 215, 330, 190  # rows of the horizon and the water's edge, column of the sun
    sky = ramp((0, (0.22, 0.45, 0.75)), (120, (0.6, 0.73, 0.86)), (sea, (1.0, 0.83, 0.6)))
    picture = clouds(rng, sky, (1.0, 0.93, 0.86), sea)
    distance = np.hypot(X - sun, Y - 165)
    picture = lay(picture, (1.0, 0.85, 0.55), 0.8 * np.exp(-distance / 65))
    picture = lay(picture, (1.0, 0.97, 0.86), smooth(23, 19, distance))
    water = ramp((sea, (0.4, 0.6, 0.7)), (250, (0.12, 0.45, 0.58)), (shore, (0.36, 0.72, 0.7)))
    near = np.clip((Y - sea) / (shore - sea), 0, 1)  # waves are finer far away
    waves = noise(rng, 7, 9, 3) * (1 - near) + noise(rng, 16, 7, 4) * near
    glitter = smooth(0.5, 0.65, waves) * np.exp(-(((X - sun) / (16 + 50 * near)) ** 2))
    water = lay(water + (waves[..., None] - 0.5) * 0.3, (1.0, 0.93, 0.72), 0.9 * glitter)
    picture = lay(picture, water, smooth(sea - 1, sea + 1, Y))
    edge = shore + 20 * np.sin(X / 95 + 0.6) + 7 * np.sin(X / 31) + (X - 320) * 0.06
    sand = ramp((300, (0.8, 0.66, 0.48)), (400, (0.94, 0.82, 0.62)), (H, (0.88, 0.74, 0.53)))
    sand = sand + ((noise(rng, 50, 3) - 0.5) * 0.16 + rng.randn(H, W) * 0.025)[..., None]
    picture = lay(picture, (0.63, 0.51, 0.38), smooth(-2, 8, Y - edge))  # wet
    picture = lay(picture, sand, smooth(12, 40, Y - edge))
    for back, strength in ((0, 0.95), (22, 0.75), (42, 0.5)):  # three lines of foam
        off = (Y - edge + back + 12 * noise(rng, 40, 2)) / (4 - back / 25)
        foam = strength * np.exp(-(off**2)) * smooth(0.2, 0.5, noise(rng, 14, 3))
        picture = lay(picture, (1.0, 0.99, 0.96), foam)
    return palm(rng, umbrella(picture))


def umbrella(picture: np.ndarray) -> np.ndarray:
    """A striped umbrella over a towel."""
    x, y = 235, 352  # the middle of its rim
    picture = lay(picture, (0.3, 0.22, 0.2), 0.45 * outline(arc(x + 40, y + 74, 90, 12), blur=4))
    towel = [(x + 18, y + 78), (x + 84, y + 68), (x + 116, y + 77), (x + 42, y + 90)]
    picture = lay(picture, (0.16, 0.42, 0.62), outline(towel))
    picture = lay(picture, (0.9, 0.88, 0.82), outline(stroke([(x, y - 50), (x - 5, y + 76)], 4, 4)))
    seams = np.cos(np.linspace(1, 0, 7) * np.pi)  # from -1, the left of the rim, to 1
    for panel in range(6):
        there, back = (arc(x, y, 80 * seam, 48, 0, 0.25) for seam in seams[panel : panel + 2])
        colour = np.array([(0.85, 0.19, 0.16), (0.99, 0.95, 0.88)][panel % 2])
        picture = lay(picture, colour * (1.04 - 0.07 * panel), outline(there + back[::-1]))
    return picture


def palm(rng: np.random.RandomState, picture: np.ndarray) -> np.ndarray:
    """A palm that leans into the picture from the right."""
    t = np.linspace(0, 1, 30)
    trunk = np.stack([600 - 95 * t**1.6, 490 - 380 * t], axis=1)
    bark = (0.34 + 0.1 * np.sin(Y / 2.4) * noise(rng, 9))[..., None] * (1.0, 0.8, 0.6)
    picture = lay(picture, bark, outline(stroke(trunk, 24, 11)))
    for turn in np.sort(rng.uniform(-0.1, 0.6, 15))[::-1] * 2 * np.pi:
        length, shade = rng.uniform(110, 150), rng.uniform(0.65, 1.35)
        rib = trunk[-1] + length * np.stack([np.cos(turn) * t, 0.72 * t**2], axis=1)
        rib[:, 1] -= length * 0.75 * np.sin(turn) * t
        leaflets = [stroke(rib, 4, 1)]
        for (x, y), reach in zip(rib[3:], 34 * np.sin(np.pi * (0.12 + 0.8 * t[3:])), strict=True):
            for side in (-0.55, 0.55):
                tip = (x + side * reach + 6 * np.cos(turn), y + 0.75 * reach)
                leaflets.append([(x - 3, y - 1), (x + 3, y - 1), tip])
        picture = lay(picture, np.array((0.12, 0.34, 0.14)) * shade, 0.95 * outline(*leaflets))
    return picture


def mountain(rng: np.random.RandomState) -> np.ndarray:
    """A mountain in the snow, with pines."""
    picture = clouds(rng, ramp((0, (0.2, 0.44, 0.78)), (260, (0.72, 0.85, 0.95))), (1, 1, 1), 250)
    slope = np.abs(X[0] - 350) * np.where(X[0] < 350, 0.78, 0.66)
    top = 62 + slope + 34 * (noise(rng, 60)[0] - 0.5) * smooth(0, 60, slope)
    relief = noise(rng, 150, 0.7)
    spine = 350 + (Y - 62) * 0.12 + 90 * (relief - 0.5)  # parts the lit side from the shady one
    light = 0.7 - 0.45 * np.tanh((X - spine) / 14) - 6 * np.gradient(relief, axis=1)
    light = np.clip(light, 0, 1)[..., None]
    snow = (0.5, 0.61, 0.8) * (1 - light) + (1.0, 0.98, 0.94) * light
    rock = np.array((0.33, 0.34, 0.4)) * (0.6 + 0.6 * light)
    bare = 0.75 * smooth(0.5, 0.6, noise(rng, 34, 0.55) + (Y - 300) / 900)
    picture = lay(picture, lay(snow, rock, bare), smooth(-1, 1, Y - top))
    picture = lay(picture, (0.75, 0.84, 0.93), 0.65 * smooth(210, 330, Y) * (top < Y))
    white = ramp((340, (0.9, 0.94, 0.99)), (H, (0.98, 0.98, 1.0)))
    white = white - (0.16, 0.11, 0.04) * noise(rng, 60, 4)[..., None]
    waves = 16 * np.sin(X[0] / 120 + 1)  # of the ground
    picture = lay(picture, white, smooth(-8, 8, Y - 338 - waves))
    for count, row, size in ((60, 334, 34), (26, 350, 62), (8, 372, 118), (2, 428, 215)):
        picture = pines(rng, picture, np.linspace(5, 615, count), row + waves, size)
    return picture


def pines(rng, picture, columns, ground, size):
    """A row of pines about `size` pixels high; far ones are pale."""
    haze = np.clip(1 - size / 140, 0, 0.55)
    for x in rng.permutation(columns) + rng.uniform(-15, 15, len(columns)):
        foot = ground[int(np.clip(x, 0, W - 1))] + rng.uniform(0, 18)
        high = size * rng.uniform(0.75, 1.15)
        shade = outline(arc(x + high / 5, foot, high * 0.3, high / 28), blur=high / 50)
        picture = lay(picture, (0.5, 0.6, 0.78), 0.55 * shade)
        branches = [stroke([(x, foot), (x, foot - high)], high * 0.06, 1)]
        for tier in np.arange(0, 1, 1 / 9):
            y = foot - high * (0.08 + 0.9 * tier)
            for reach in rng.uniform(0.8, 1.2, 2) * (-1, 1) * high * 0.24 * (1 - tier):
                branches.append([(x, y - high * 0.2), (x + reach, y + high * 0.03), (x, y)])
        green = np.array((0.08, 0.2, 0.17)) * rng.uniform(0.8, 1.3)
        green = green * (1 - haze) + np.array((0.6, 0.72, 0.84)) * haze
        picture = lay(picture, green, outline(*branches, blur=0.6))
    return picture


def city(rng: np.random.RandomState) -> np.ndarray:
    """A city at night across a river, under the moon."""
    bank = 330  # the row where the water begins
    picture = ramp((0, (0.03, 0.05, 0.14)), (200, (0.1, 0.13, 0.3)), (bank, (0.42, 0.3, 0.4)))
    stars = (rng.rand(H, W) > 0.9988) * rng.uniform(0.3, 1, (H, W)) * smooth(260, 80, Y)
    picture = lay(picture, (1.0, 1.0, 0.95), 4 * blurred(stars, 0.6))
    distance = np.hypot(X - 505, Y - 72)
    picture = lay(picture, (0.75, 0.78, 0.9), 0.55 * np.exp(-distance / 48))
    moon = noise(rng, 16)[..., None] * 0.18 + (0.82, 0.8, 0.72)
    picture = lay(picture, moon, smooth(32, 30, distance))
    rows = ((20, 150, (0.2, 0.19, 0.33)), (16, 215, (0.1, 0.1, 0.2)), (15, 120, (0.05, 0.05, 0.1)))
    for depth, (count, tallest, tone) in enumerate(rows):
        for x in np.linspace(-30, W, count) + rng.uniform(-14, 14, count):
            tall = rng.uniform(40, tallest)
            picture = tower(rng, picture, x, bank, tall, tone, 0.28 + 0.22 * depth)
    return river(rng, picture, bank)


def tower(rng, picture, x, foot, tall, tone, bright):
    """A house that rises `tall` pixels from its lower left corner, some of its windows lit."""
    wide, roof = rng.uniform(30, 58), foot - tall
    walls = [(x, foot), (x, roof), (x + wide, roof), (x + wide, foot)]
    picture = lay(picture, np.array(tone) * rng.uniform(0.8, 1.25), outline(walls))
    panes = np.mgrid[roof + 7 : foot - 6 : 8, x + 5 : x + wide - 6 : 7].reshape(2, -1).T
    lamps = rng.rand(len(panes)) / rng.uniform(0.2, 0.6)  # above 1: nobody is at home
    for low, colour in ((0, (1, 0.8, 0.45)), (0.6, (1, 0.95, 0.8)), (0.9, (0.7, 0.85, 1))):
        lit = panes[(lamps >= low) & (lamps < 1)]
        mask = outline(*([(x, y), (x + 3.6, y), (x + 3.6, y + 4.6), (x, y + 4.6)] for y, x in lit))
        picture = lay(picture, colour, bright * (1.1 * mask + 0.35 * blurred(mask, 3)))
    return picture


def river(rng: np.random.RandomState, picture: np.ndarray, bank: int) -> np.ndarray:
    """All that is above the bank once more below it, drawn long and broken by ripples."""
    ripples, below = noise(rng, 6, 8, 3) - 0.5, np.clip(Y - bank, 0, None)
    rows = np.clip(bank - below * 1.5 + ripples * (6 + below * 0.55), 0, bank - 1).astype(int)
    columns = np.clip(X + ripples * (2 + below * 0.08), 0, W - 1).astype(int)
    mirrored = [blurred(picture[rows, columns, i], 1.2) for i in range(3)]
    water = np.stack(mirrored, axis=-1) * 0.72 + (0.01, 0.02, 0.05) + ripples[..., None] * 0.05
    return lay(picture, water, smooth(bank - 1, bank + 1, Y))


SCENES = {'ex5': beach, 'ex6': mountain, 'ex7': city}


def paint(name: str) -> Image.Image:
    """The picture called `name` as a lens would see it: darker corners, grain, a little blur."""
    rng = np.random.RandomState(2015)
    corners = 1 - 0.22 * (np.hypot((X - W / 2) / W, (Y - H / 2) / H) / 0.7) ** 3
    picture = SCENES[name](rng) * corners[..., None] + rng.randn(H, W, 1) * 0.013
    pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('images'), help='folder (%(default)s)')
    out = parser.parse_args().out
    for name in SCENES:
        paint(name).save(out / f'{name}.jpg', quality=88)


if __name__ == '__main__':
    main()
