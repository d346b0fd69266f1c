"""Measure a bundle on photos and books that it was not trained on; print the figures as JSON.

DATA holds flickr8k/ (photos, captions.txt, dev.txt, fc7_dev.npz) and novels/ (the shard romance-13
is held out). With --sheet, 30 of the photos are shown with their nearest captions in one picture.
Needs the extra `eval`.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from storyteller import captions as pool
from storyteller import decoder, embedding, generate, skipthoughts
from storyteller.evaluation import ranking
from storyteller.images import load_image
from storyteller.layers import unit_rows
from storyteller.text import preprocess
from storyteller.training import documents
from storyteller.training.command_line import run
from storyteller.training.matching import Matches
from storyteller.training.photos import read_fc7, read_names, read_photos


def photo_inputs(data: Path, names: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """The pictures, and the network's inputs (N, 3, 224, 224)."""
    photos = read_photos(data / 'flickr8k')
    pairs = [load_image(io.BytesIO(photos[name])) for name in tqdm(names, desc='photos')]
    return [picture for picture, _ in pairs], np.concatenate([pixels for _, pixels in pairs])


def recalls(z: dict[str, Any], features: np.ndarray, captions: list[list[str]]) -> dict[str, Any]:
    """Both ways: recall at 1, 5 and 10 in percent, and the median rank."""
    images = embedding.encode_images(z['vse'], features)
    sentences = embedding.encode_sentences(z['vse'], [c for photo in captions for c in photo])
    ways = {'image to text': ranking.i2t, 'text to image': ranking.t2i}
    return {
        way: [round(float(value), 1) for value in measure(images, sentences)[:4]]
        for way, measure in ways.items()
    }


def unknown_words(z: dict[str, Any]) -> dict[str, float]:
    """Share of the pool's words, in percent, that each sentence encoder does not know."""
    known = {'skip-thoughts': z['stv']['utable'], 'embedding': z['vse']['worddict']}
    words = {
        'skip-thoughts': [w for caption in preprocess(z['cap']) for w in caption.split()],
        'embedding': [w for caption in z['cap'] for w in caption.split()],
    }
    return {
        name: round(100 * sum(w not in table for w in words[name]) / len(words[name]), 3)
        for name, table in known.items()
    }


def repetition(z: dict[str, Any], joint: np.ndarray) -> dict[str, Any]:
    """How varied the nearest captions are."""
    top = pool.nearest(joint, z['cvec'], 1)[0][:, 0]
    often = Counter(top.tolist()).most_common(10)
    return {
        'different top captions': len(set(top.tolist())),
        'share of the ten most frequent, percent': round(100 * sum(n for _, n in often) / len(top)),
    }


def word_fit(z: dict[str, Any], joint: np.ndarray, captions: list[list[str]]) -> dict[str, Any]:
    """How many words the nearest caption shares with the photo's own, by tf-idf; and a random one.

    A caption that says the same in other words counts for little, so this is a lower bound.
    """
    matches = Matches.of(captions, z['cap'], lambda text: re.findall(r'\w{3,}', text.lower()))
    rows = np.arange(len(captions))
    top = pool.nearest(joint, z['cvec'], 1)[0][:, 0]
    other = np.random.default_rng(0).integers(0, len(z['cap']), len(rows))
    found = {}
    for name, chosen in (('nearest', top), ('random', other)):
        similarity = np.asarray(matches.similarity[rows, chosen]).ravel()
        found[f'{name}, mean'] = round(float(similarity.mean()), 3)
        found[f'{name}, percent above 0.3'] = round(100 * float((similarity > 0.3).mean()), 1)
    return found


def repeated(passage: str, n: int = 4) -> float:
    """The share of a story's runs of `n` words that stood in it before."""
    words = passage.split()
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(runs)) / max(1, len(runs))


def lengths(passages: list[str]) -> dict[str, float]:
    """Words, distinctness and repetition of stories."""
    words = [len(passage.split()) for passage in passages]
    openings = {' '.join(passage.split()[:5]) for passage in passages}
    again = 100 * float(np.mean([repeated(passage) for passage in passages]))
    return {
        'stories': len(passages),
        'distinct': len(set(passages)),
        'distinct openings of five words': len(openings),
        'repeated runs of four words, percent': round(again, 1),
        'words, least': min(words),
        'words, median': float(np.median(words)),
        'words, most': max(words),
    }


def perplexity(z: dict[str, Any], passages: list[str]) -> float:
    """Of the decoder on passages told from their own vectors, words it lacks left out."""
    vectors = skipthoughts.encode(z['stv'], passages, verbose=False, tokenised=True)
    cost = words = 0.0
    for passage, vector in zip(tqdm(passages, desc='perplexity'), vectors, strict=True):
        state = z['dec']['f_init'](vector[None])
        word = -1
        n_words = z['dec']['options']['n_words']
        for token in [*passage.split(), '<eos>']:
            probabilities, _, state = z['dec']['f_next'](np.array([word]), state)
            word = z['dec']['worddict'].get(token, 1)
            word = word if word < n_words else 1
            if word != 1:
                cost -= np.log(probabilities[0, word])
                words += 1
    return float(np.exp(cost / words))


def held_out_passages(data: Path, wanted: int = 60) -> list[str]:
    """Passages of 40 to 140 words from the books that were held out."""
    found, rng = [], np.random.default_rng(0)
    (shard,) = documents.text_files(data / 'novels', 'romance-13*')
    for book in documents.books(shard):
        paragraphs = [text.strip() for text in preprocess(book[:2000])]
        fitting = [text for text in paragraphs if 40 <= len(text.split()) <= 140]
        found += [fitting[i] for i in rng.permutation(len(fitting))[: wanted // 10]]
    return found[:wanted]


def sheet(pictures: list[np.ndarray], captions: list[str], path: Path) -> None:
    """Photos in a grid, each over its nearest caption."""
    page = Image.new('RGB', (6 * 240, 5 * 280), 'white')
    draw = ImageDraw.Draw(page)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % 6 * 240 + 8, i // 6 * 280 + 8
        page.paste(Image.fromarray(picture), (x, y))
        words, line, row = caption.split(), '', 0
        for word in [*words, '']:
            if not word or len(line) + len(word) > 36:
                draw.text((x, y + 228 + 12 * row), line, fill='black')
                line, row = '', row + 1
            line += word + ' '
    page.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--models', type=Path, help='default: the bundle')
    parser.add_argument('--stories', type=int, default=100, help='photos to tell (%(default)s)')
    parser.add_argument('--bw', type=int, nargs='+', default=[1, 5, 50], help='beam widths')
    parser.add_argument('--told', type=Path, help='also write the stories here, as JSON lines')
    parser.add_argument('--sheet', type=Path, help='also draw 30 photos with their top captions')
    args = parser.parse_args()
    z = generate.load_all(args.models)
    names = read_names(args.data / 'flickr8k', 'dev')
    by_photo: dict[str, list[str]] = {name: [] for name in names}
    for line in documents.read_text(args.data / 'flickr8k' / 'captions.txt'):
        name, caption = line.split('\t')
        if name in by_photo:
            by_photo[name].append(caption.strip())
    captions = list(by_photo.values())
    pictures, inputs = photo_inputs(args.data, names)
    features = unit_rows(generate.compute_features(z['net'], inputs))
    joint = embedding.encode_images(z['vse'], features)
    figures: dict[str, Any] = {'narrow network': recalls(z, features, captions)}
    if 4096 in z['vse']['_images']:
        real = read_fc7(args.data / 'flickr8k' / 'fc7_dev.npz').numpy()
        figures['VGG-19'] = recalls(z, real, captions)
    figures['unknown words of the pool, percent'] = unknown_words(z)
    figures['nearest captions'] = repetition(z, joint)
    figures['nearest caption and own ones, cosine of words'] = word_fit(z, joint, captions)
    figures['decoder perplexity, held-out books'] = perplexity(z, held_out_passages(args.data))
    chosen = np.random.default_rng(0).permutation(len(names))
    if args.sheet:
        top = pool.nearest(joint, z['cvec'], 1)[0][:, 0]
        rows = chosen[:30]
        sheet([pictures[i] for i in rows], [z['cap'][top[i]] for i in rows], args.sheet)
        for i in rows:
            print(names[i], '|', z['cap'][top[i]])
    rows = chosen[: args.stories]
    nearest = pool.nearest(joint[rows], z['cvec'], 100)[0]
    thoughts = generate.mean_thoughts(z, nearest) - z['bneg'] + z['bpos']
    for bw in args.bw:
        told = decoder.run_samplers(z['dec'], thoughts, bw)
        figures[f'stories, bw={bw}'] = lengths([str(story) for story in told])
        if args.told:
            with open(args.told, 'a', encoding='utf-8') as file:
                for i, story in zip(rows, told, strict=True):
                    row = {'photo': names[i], 'bw': bw, 'story': str(story)}
                    file.write(json.dumps(row) + '\n')
    print(json.dumps(figures, indent=1))


if __name__ == '__main__':
    run(main)
