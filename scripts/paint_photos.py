"""Paint the sample pictures that no photographer had to take.

Four scenes, each from far to near as a painter works: sky, distance, middle ground, foreground.
Everything is one of three gestures. A *ramp* of colours fills the sheet from top to bottom;
*noise* gives clouds, waves, rock and sand their grain; and a *mask*, the outline of a thing, says
where a colour is laid over what is there already. The same seed paints the same picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

W, H = 640, 480  # pixels of a picture, which is an (H, W, 3) array from 0 to 1
FINE = 3  # outlines are drawn this much larger, so that their edges come out soft
Y, X = np.mgrid[0:H, 0:W]  # row and column of every pixel

Colour = Sequence[float]
Point = tuple[float, float]


# --- gestures ------------------------------------------------------------------------------------


def ramp(*stops: tuple[float, Colour]) -> np.ndarray:
    """A sheet (H, W, 3) of colours that change from row to row; a stop is a row and its colour."""
    rows = [row for row, _ in stops]
    columns = [np.interp(Y, rows, [colour[i] for _, colour in stops]) for i in range(3)]
    return np.stack(columns, axis=-1)


def noise(rng: np.random.RandomState, size: float, stretch: float = 1.0, octaves: int = 5):
    """Cloudy noise (H, W) from 0 to 1: coarse blots of `size` pixels and ever finer ones on top.

    `stretch` makes them wider than high.
    """
    total = np.zeros((H, W))
    for octave in range(octaves):
        across = max(2, round(W / (size * stretch) * 2**octave) + 1)
        down = max(2, round(H / size * 2**octave) + 1)
        blots = Image.fromarray(rng.rand(down, across).astype(np.float32))
        total += np.asarray(blots.resize((W, H), Image.Resampling.BICUBIC)) / 2**octave
    return (total - total.min()) / np.ptp(total)


def smooth(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, and no corner between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def outline(*shapes: Sequence[Point], blur: float = 0.0) -> np.ndarray:
    """The mask (H, W) of polygons; `blur` in pixels is how far it lies out of focus."""
    sheet = Image.new('L', (W * FINE, H * FINE))
    pen = ImageDraw.Draw(sheet)
    for shape in shapes:
        pen.polygon([(x * FINE, y * FINE) for x, y in shape], fill=255)
    sheet = sheet.resize((W, H), Image.Resampling.BOX)
    return np.asarray(sheet.filter(ImageFilter.GaussianBlur(blur)), dtype=float) / 255


def disc(x: float, y: float, radius: float, edge: float = 1.0) -> np.ndarray:
    """The mask (H, W) of a round thing."""
    return 1 - smooth(radius - edge, radius + edge, np.hypot(X - x, Y - y))


def stroke(points: Sequence[Point], start: float, end: float) -> list[Point]:
    """The outline of a brush stroke along `points`, `start` pixels wide and thinning to `end`."""
    path = np.array(points, dtype=float)
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(
        along, axis=1, keepdims=True
    )
    half = np.linspace(start, end, len(path))[:, None] / 2
    return [tuple(p) for p in np.vstack([path + across * half, (path - across * half)[::-1]])]


def lay(picture: np.ndarray, colour: np.ndarray | Colour, mask: np.ndarray) -> np.ndarray:
    """Lay a colour, or a sheet of colours, over the picture where the mask is 1."""
    mask = np.clip(mask, 0, 1)[..., None]
    return picture * (1 - mask) + np.asarray(colour) * mask


def finish(rng: np.random.RandomState, picture: np.ndarray) -> Image.Image:
    """What a lens would do: a little blur, darker corners, grain."""
    corners = 1 - 0.22 * (np.hypot((X - W / 2) / W, (Y - H / 2) / H) / 0.7) ** 3
    picture = picture * corners[..., None] + rng.randn(H, W, 1) * 0.013
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(0.5))


def arc(x: float, y: float, wide: float, high: float, start: float, end: float) -> list[Point]:
    """Points of an ellipse around (x, y), from one angle to another, in turns from the right."""
    turns = np.linspace(start, end, 40) * 2 * np.pi
    return [(x + wide * np.cos(t), y - high * np.sin(t)) for t in turns]


def ridge(rng: np.random.RandomState, height: float, rough: float, size: float) -> np.ndarray:
    """A skyline: for every column the row of its top, `rough` pixels up and down."""
    return height + rough * (noise(rng, size)[H // 2] - 0.5) * 2


# --- scenes --------------------------------------------------------------------------------------


def beach(rng: np.random.RandomState) -> np.ndarray:
    """A beach in the evening, with a palm and an umbrella."""
    sea, shore, sun = 215, 330, 190  # rows of the horizon and the water's edge, column of the sun
    picture = ramp((0, (0.22, 0.45, 0.75)), (120, (0.6, 0.73, 0.86)), (sea, (1.0, 0.83, 0.6)))
    clouds = smooth(0.5, 0.85, noise(rng, 90, 3)) * smooth(sea, 60, Y)
    picture = lay(picture, (1.0, 0.93, 0.86), 0.75 * clouds)
    picture = lay(picture, (1.0, 0.85, 0.55), 0.8 * np.exp(-np.hypot(X - sun, Y - 165) / 65))
    picture = lay(picture, (1.0, 0.97, 0.86), disc(sun, 165, 21, 2))

    water = ramp((sea, (0.4, 0.6, 0.7)), (250, (0.12, 0.45, 0.58)), (shore, (0.36, 0.72, 0.7)))
    near = np.clip((Y - sea) / (shore - sea), 0, 1)  # waves are finer far away
    waves = noise(rng, 7, 9, 3) * (1 - near) + noise(rng, 16, 7, 4) * near
    water = water + ((waves - 0.5) * 0.3)[..., None]
    glitter = smooth(0.5, 0.65, waves) * np.exp(-(((X - sun) / (16 + 50 * near)) ** 2))
    water = lay(water, (1.0, 0.93, 0.72), 0.9 * glitter)
    picture = lay(picture, water, smooth(sea - 1, sea + 1, Y))

    edge = shore + 20 * np.sin(X / 95 + 0.6) + 7 * np.sin(X / 31) + (X - 320) * 0.06
    sand = ramp((shore - 30, (0.8, 0.66, 0.48)), (400, (0.94, 0.82, 0.62)), (H, (0.88, 0.74, 0.53)))
    sand = sand + ((noise(rng, 50, 3) - 0.5) * 0.16 + rng.randn(H, W) * 0.025)[..., None]
    picture = lay(picture, (0.63, 0.51, 0.38), smooth(-2, 8, Y - edge))  # wet
    picture = lay(picture, sand, smooth(12, 40, Y - edge))
    for back, strength in ((0, 0.95), (22, 0.75), (42, 0.5)):
        line = (Y - edge + back + 12 * noise(rng, 40, 2)) / (4 - back / 25)
        broken = smooth(0.2, 0.5, noise(rng, 14, 3))
        picture = lay(picture, (1.0, 0.99, 0.96), strength * np.exp(-(line**2)) * broken)
    return palm(rng, umbrella(picture))


def umbrella(picture: np.ndarray) -> np.ndarray:
    """A striped umbrella over a towel."""
    x, y, wide, high = 235, 352, 80, 48
    picture = lay(
        picture, (0.3, 0.22, 0.2), 0.45 * outline(arc(x + 40, y + 74, 90, 12, 0, 1), blur=4)
    )
    towel = [(x + 18, y + 78), (x + 84, y + 68), (x + 116, y + 77), (x + 42, y + 90)]
    picture = lay(picture, (0.16, 0.42, 0.62), outline(towel))
    picture = lay(picture, (0.9, 0.88, 0.82), outline(stroke([(x, y - 50), (x - 5, y + 76)], 4, 4)))
    seams = np.cos(np.linspace(1, 0, 7) * np.pi)  # from -1, the left rim, to 1, the right one
    for panel, (left, right) in enumerate(zip(seams, seams[1:])):
        there, back = arc(x, y, wide * left, high, 0, 0.25), arc(x, y, wide * right, high, 0.25, 0)
        colour = np.array([(0.85, 0.19, 0.16), (0.99, 0.95, 0.88)][panel % 2])
        picture = lay(picture, colour * (1.04 - 0.07 * panel), outline(there + back))
    return picture


def palm(rng: np.random.RandomState, picture: np.ndarray) -> np.ndarray:
    """A palm that leans into the picture from the right."""
    t = np.linspace(0, 1, 30)
    trunk = list(zip(600 - 95 * t**1.6, 470 - 360 * t))
    picture = lay(picture, (0.3, 0.23, 0.2), 0.4 * outline(arc(570, 462, 70, 8, 0, 1), blur=4))
    bark = np.stack([0.34 + 0.1 * np.sin(Y / 2.4) * noise(rng, 9)] * 3, axis=-1) * (1.0, 0.8, 0.6)
    picture = lay(picture, bark, outline(stroke(trunk, 24, 11)))
    crown_x, crown_y = trunk[-1]
    for turn in np.sort(rng.uniform(-0.1, 0.6, 15))[::-1]:
        length = rng.uniform(110, 150)
        rib_x = crown_x + np.cos(turn * 2 * np.pi) * length * t
        rib_y = crown_y - np.sin(turn * 2 * np.pi) * length * 0.75 * t + 85 * t**2.2
        green = np.array((0.12, 0.34, 0.14)) * rng.uniform(0.65, 1.35)
        leaflets = [stroke(list(zip(rib_x, rib_y)), 4, 1)]
        for x, y, here in zip(rib_x[3:], rib_y[3:], t[3:]):
            reach = 34 * np.sin(np.pi * (0.12 + 0.8 * here))
            for side in (-1, 1):
                tip = (x + side * reach * 0.55 + 6 * np.cos(turn * 6.3), y + reach * 0.75)
                leaflets.append([(x - 3, y - 1), (x + 3, y - 1), tip])
        picture = lay(picture, green, 0.95 * outline(*leaflets))
    return picture


def mountain(rng: np.random.RandomState) -> np.ndarray:
    """A mountain in the snow, with pines."""
    picture = ramp((0, (0.2, 0.44, 0.78)), (260, (0.72, 0.85, 0.95)))
    clouds = smooth(0.5, 0.9, noise(rng, 80, 3.5)) * smooth(250, 120, Y)
    picture = lay(picture, (1, 1, 1), 0.8 * clouds)
    far = ridge(rng, 265, 45, 90)
    picture = lay(picture, (0.62, 0.73, 0.86), smooth(-1, 1, Y - far))

    slope = np.abs(X[0] - 350) * np.where(X[0] < 350, 0.78, 0.66)
    top = 62 + slope + 34 * (noise(rng, 60)[0] - 0.5) * smooth(0, 60, slope)
    relief = noise(rng, 150, 0.7, 5)
    spine = (
        350 + (Y - 62) * 0.12 + 90 * (relief - 0.5)
    )  # the edge between the lit and the shady side
    light = 0.7 - 0.45 * np.tanh((X - spine) / 14) - 6 * np.gradient(relief, axis=1)
    light = np.clip(light, 0, 1)[..., None]
    rock = np.array((0.33, 0.34, 0.4)) * (0.6 + 0.6 * light)
    bare = smooth(0.5, 0.6, noise(rng, 34, 0.55) + (Y - 300) / 900)
    face = lay((0.5, 0.61, 0.8) * (1 - light) + (1.0, 0.98, 0.94) * light, rock, 0.75 * bare)
    picture = lay(picture, face, smooth(-1, 1, Y - top))
    picture = lay(picture, (0.75, 0.84, 0.93), 0.65 * smooth(210, 330, Y) * smooth(-1, 1, Y - far))

    ground = 350 + 16 * np.sin(X / 120 + 1) + (320 - X) * 0.05
    drifts = noise(rng, 60, 4)
    white = (
        ramp((340, (0.9, 0.94, 0.99)), (H, (0.98, 0.98, 1.0)))
        - (0.16, 0.11, 0.04) * drifts[..., None]
    )
    for row, count, size in ((338, 60, 34), (352, 26, 62), (372, 9, 118), (430, 4, 215)):
        if row == 352:
            picture = lay(picture, white, smooth(-6, 6, Y - ground))
        for x in rng.permutation(np.linspace(-10, W + 10, count)) + rng.uniform(-20, 20, count):
            if row < 400 or abs(x - W / 2) > 190:
                foot = row + rng.uniform(0, 18) + 16 * np.sin(x / 120 + 1)
                picture = pine(rng, picture, x, foot, size * rng.uniform(0.75, 1.15))
    return picture


def pine(
    rng: np.random.RandomState, picture: np.ndarray, x: float, foot: float, height: float
) -> np.ndarray:
    """A pine with snow on its branches; far ones are pale."""
    haze = np.clip(1 - height / 140, 0, 0.55)
    green = np.array((0.08, 0.2, 0.17)) * rng.uniform(0.8, 1.3)
    green = green * (1 - haze) + np.array((0.6, 0.72, 0.84)) * haze
    shade = outline(
        arc(x + height * 0.22, foot, height * 0.3, height * 0.035, 0, 1), blur=height / 50
    )
    picture = lay(picture, (0.5, 0.6, 0.78), 0.55 * shade)
    branches, caps = [stroke([(x, foot), (x, foot - height)], height * 0.06, 1)], []
    tiers = 9
    for tier in range(tiers):
        y, half = foot - height * (0.08 + 0.9 * tier / tiers), height * 0.24 * (1 - tier / tiers)
        left, right = half * rng.uniform(0.8, 1.2, 2)
        up = y - height * 0.2
        branches.append(
            [(x, up), (x + right, y + height * 0.03), (x, y), (x - left, y + height * 0.03)]
        )
        for side, reach in ((-1, left), (1, right)):
            end = (x + side * reach, y + height * 0.03)
            inner = (x + side * reach * rng.uniform(0.1, 0.5), y - height * 0.05)
            caps.append([inner, end, (x + side * reach * 0.6, y + height * 0.005)])
    picture = lay(picture, green, outline(*branches, blur=0.6))
    return lay(picture, (0.95, 0.97, 1.0), 0.85 * outline(*caps, blur=0.4))


def city(rng: np.random.RandomState) -> np.ndarray:
    """A city at night across a river, under the moon."""
    bank = 330
    picture = ramp((0, (0.03, 0.05, 0.14)), (200, (0.1, 0.13, 0.3)), (bank, (0.42, 0.3, 0.4)))
    stars = (rng.rand(H, W) > 0.9988) * rng.uniform(0.3, 1, (H, W)) * smooth(260, 80, Y)
    picture = lay(picture, (1, 1, 0.95), np.clip(_blurred(stars, 0.6) * 4, 0, 1))
    moon = np.hypot(X - 505, Y - 72)
    picture = lay(picture, (0.75, 0.78, 0.9), 0.55 * np.exp(-moon / 48))
    seas = 0.82 + 0.18 * noise(rng, 16)
    picture = lay(picture, seas[..., None] * (1.0, 0.98, 0.9), disc(505, 72, 31))
    clouds = smooth(0.52, 0.9, noise(rng, 70, 5)) * smooth(300, 150, Y)
    picture = lay(picture, (0.25, 0.27, 0.42), 0.75 * clouds)
    for depth, (count, low, high) in enumerate(((20, 60, 150), (16, 60, 215), (15, 25, 120))):
        tone = np.array(((0.2, 0.19, 0.33), (0.1, 0.1, 0.2), (0.05, 0.05, 0.1))[depth])
        for x in np.linspace(-30, W, count) + rng.uniform(-14, 14, count):
            wide, tall = rng.uniform(30, 58), rng.uniform(low, high)
            picture = tower(rng, picture, x, bank, wide, tall, tone, 0.25 + 0.2 * depth)
    return river(rng, picture, bank)


def tower(rng, picture, x, bank, wide, tall, tone, bright):
    """A house of `tall` pixels with some of its windows lit."""
    walls = [[(x, bank), (x, bank - tall), (x + wide, bank - tall), (x + wide, bank)]]
    if tall > 150 and rng.rand() < 0.7:  # a set-back and a mast
        walls.append(
            [(x + wide * a, bank - tall - b) for a, b in ((0.2, 0), (0.2, 14), (0.8, 14), (0.8, 0))]
        )
        walls.append(stroke([(x + wide / 2, bank - tall), (x + wide / 2, bank - tall - 44)], 3, 1))
    picture = lay(picture, tone * rng.uniform(0.8, 1.25), outline(*walls))
    lit: dict[int, list] = {0: [], 1: [], 2: []}
    busy = rng.uniform(0.2, 0.6)
    for row in np.arange(bank - tall + 7, bank - 6, 8.0):
        for column in np.arange(x + 5, x + wide - 6, 7.0):
            if rng.rand() < busy:
                pane = [
                    (column, row),
                    (column + 3.6, row),
                    (column + 3.6, row + 4.6),
                    (column, row + 4.6),
                ]
                lit[rng.choice(3, p=(0.6, 0.28, 0.12))].append(pane)
    for kind, colour in enumerate(((1.0, 0.82, 0.45), (1.0, 0.93, 0.75), (0.7, 0.85, 1.0))):
        panes = outline(*lit[kind])
        picture = lay(picture, colour, bright * 1.1 * panes + 0.35 * bright * _blurred(panes, 3))
    return picture


def river(rng: np.random.RandomState, picture: np.ndarray, bank: int) -> np.ndarray:
    """Everything above the bank once more below it, drawn long and broken by ripples."""
    ripples = noise(rng, 6, 8, 3) - 0.5
    below = np.clip(Y - bank, 0, None)
    rows = np.clip(bank - below * 1.5 + ripples * (6 + below * 0.55), 0, bank - 1).astype(int)
    columns = np.clip(X + ripples * (2 + below * 0.08), 0, W - 1).astype(int)
    mirrored = picture[rows, columns]
    mirrored = np.stack([_blurred(mirrored[..., i], 1.2) for i in range(3)], axis=-1)
    mirrored = mirrored * 0.72 + np.array((0.01, 0.02, 0.05)) + (ripples * 0.05)[..., None]
    picture = lay(picture, mirrored, smooth(bank - 1, bank + 1, Y))
    return lay(picture, (0.03, 0.03, 0.06), np.exp(-(((Y - bank - 1) / 3.0) ** 2)))


def _blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray((np.clip(mask, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=float) / 255


def boat(rng: np.random.RandomState) -> np.ndarray:
    """A sailing boat on a lake."""
    lake = 235
    picture = ramp((0, (0.25, 0.52, 0.86)), (lake, (0.8, 0.9, 0.96)))
    clouds = smooth(0.45, 0.8, noise(rng, 75, 2.4)) * smooth(235, 90, Y)
    picture = lay(picture, (1, 1, 1), 0.9 * clouds)
    for height, rough, colour in (
        (178, 30, (0.55, 0.68, 0.8)),
        (200, 22, (0.36, 0.52, 0.56)),
        (219, 12, (0.2, 0.38, 0.28)),
    ):
        grain = noise(rng, 14, 1.5)[..., None] * 0.12
        picture = lay(
            picture,
            np.array(colour) + grain - 0.06,
            smooth(-1, 1, Y - ridge(rng, height, rough, 110)),
        )
    near = np.clip((Y - lake) / (H - lake), 0, 1)
    waves = noise(rng, 6, 8, 3) * (1 - near) + noise(rng, 22, 5, 5) * near
    water = ramp((lake, (0.5, 0.68, 0.8)), (300, (0.16, 0.42, 0.62)), (H, (0.05, 0.24, 0.42)))
    water = water + ((waves - 0.5) * 0.34)[..., None]
    picture = lay(picture, water, smooth(lake - 1, lake + 1, Y))

    x, y = 345, 352  # where the mast meets the deck
    sails = (
        (
            [(x - 4, y - 262), *arc(x - 46, y - 22, -90, 190, 0.17, 0), (x - 4, y - 22)],
            (0.99, 0.98, 0.95),
        ),
        (
            [(x + 5, y - 240), (x + 142, y - 24), (x + 60, y - 26), (x + 8, y - 20)],
            (0.9, 0.28, 0.2),
        ),
    )
    broken = smooth(0.25, 0.6, waves)
    for sail, colour in sails:
        mirror = [(px + (y - py) * 0.03, y + 42 + (y - py) * 0.42) for px, py in sail]
        picture = lay(picture, np.array(colour) * 0.9, 0.55 * outline(mirror, blur=3) * broken)
    hull = [
        (x - 140, y - 8),
        (x + 118, y - 14),
        (x + 150, y - 20),
        (x + 104, y + 28),
        (x - 112, y + 28),
    ]
    shade = [(px, y + 56 - (py - y) * 0.7) for px, py in hull]
    picture = lay(picture, (0.03, 0.12, 0.22), 0.75 * outline(shade, blur=4))
    picture = lay(picture, (0.97, 0.97, 0.95), outline(hull, blur=0.5))
    picture = lay(picture, (0.12, 0.22, 0.42), outline(hull) * smooth(y + 8, y + 11, Y))
    picture = lay(picture, (0.45, 0.28, 0.16), outline(stroke([(x, y), (x, y - 276)], 5, 3)))
    for sail, colour in sails:
        folds = 0.9 + 0.1 * np.sin((X - x) / 17 + (Y - y) / 60) * smooth(-200, 0, Y - y)
        picture = lay(picture, folds[..., None] * colour, outline(sail, blur=0.5))
    wake = (
        np.exp(-(((Y - y - 29) / 4.5) ** 2))
        * smooth(x - 230, x - 100, X)
        * smooth(x + 150, x + 90, X)
    )
    return lay(picture, (1, 1, 1), 0.9 * wake * smooth(0.3, 0.7, waves))


SCENES: dict[str, Callable[[np.random.RandomState], np.ndarray]] = {
    'ex5': beach,
    'ex6': mountain,
    'ex7': city,
    'ex8': boat,
}


def paint(name: str) -> Image.Image:
    """The picture called `name`, the same one each time."""
    rng = np.random.RandomState(2015)
    return finish(rng, SCENES[name](rng))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('images'), help='folder (%(default)s)')
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for name in SCENES:
        paint(name).save(out / f'{name}.jpg', quality=88)


if __name__ == '__main__':
    main()
