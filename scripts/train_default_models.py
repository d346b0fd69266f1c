"""Train the default bundle from texts and photos.

Each stage is skipped if its result is there, and goes on from its checkpoint if it was
interrupted, so the same command can be given again until all is done. Minutes are shared out among
the stages that learn; a stage that used its share can be given more by a larger number. Needs the
extra `eval`. A GPU is used where there is one, with larger batches; a checkpoint goes on only where
it was begun.

Two processes, one on each core, with --only and OMP_NUM_THREADS=1, are faster than one with two
threads; GLIBC_TUNABLES=glibc.malloc.hugetlb=1 saves a tenth of the time on Linux. The decoder alone
can also be shared by processes, with torchrun --nproc-per-node 2 -- ... and --only decoder.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from storyteller.cli.arguments import run, use_threads

if __name__ == '__main__':
    use_threads()  # before torch is loaded

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from storyteller import formats, generate, skipthoughts
from storyteller.captions import stored
from storyteller.cli import check
from storyteller.embedding import encode_sentences
from storyteller.embedding import load_model as load_embedding
from storyteller.images import load_image, read_rgb
from storyteller.io import bundle
from storyteller.io.word_table import write_table
from storyteller.layers import unit_rows
from storyteller.nn import efficientnet
from storyteller.nn.nearest import nearest
from storyteller.style import shift
from storyteller.text import Vocabulary
from storyteller.training import (
    back_translation,
    decoder,
    distributed,
    embedding,
    fine_tuning,
    preferences,
)
from storyteller.training import skipthoughts as training_skipthoughts
from storyteller.training.data import (
    documents,
    flickr8k,
    origins,
    passages,
    pronouns,
    prose,
)
from storyteller.training.data.captioned import CaptionedPhotos, encode
from storyteller.training.data.corpus import Corpus
from storyteller.training.data.imagined import ImaginedPhotos
from storyteller.training.data.marked import read_marked
from storyteller.training.data.matching import Candidates, Matches
from storyteller.training.image_layer import ImageLayerOptions, fit_image_layer
from storyteller.training.options import TrainOptions

ENCODER_WORDS = 16_000
DECODER_WORDS = 10_000
GPU = torch.cuda.is_available()
WIDER = 4 if GPU else 1  # a step of models as small as these leaves most of a GPU idle
HELD_OUT = 'romance-13', 'more-26'  # shards of novels to measure on
LEFT_OUT = Path(__file__).with_name('words_to_leave_out.txt')
ADVENTURE = Path(__file__).with_name('adventure_authors.txt')
SCENES = {  # what was written for captions of the pool, by style; ' / ' parts the lines of songs
    'romance': Path(__file__).with_name('scene_passages.txt'),
    'lyric': Path(__file__).with_name('scene_songs.txt'),
}
# What the decoder told of photos, as readers marked it from 1 to 5, and the best of it mended.
PREFERENCES = Path(__file__).with_name('photo_preferences.txt')
UNNAMED = '_unnamed'  # ending of a text with pronouns for names
STYLES = {  # and their texts
    'romance': f'novels{UNNAMED}',
    'adventure': f'adventure{UNNAMED}',
    'lyric': 'lyrics',
}
PASSAGES = 14, 50  # words of those that the decoder learns from; stories get about as long
SENTENCES = 4, 22  # tokens of their sentences: what is said shortly is said clearly
VERSES = 35, 80  # words of the passages of songs
CUTS = 3  # passages are cut anew so often: other borders, other vectors
HE_OR_SHE = 'he him his himself', 'she her hers herself'  # a passage speaks of one
BEST = {'romance': 0.85, 'adventure': 0.85, 'lyric': 0.7}  # share that captions fit best
NEAREST = 30  # captions that a passage is told of
AROUND = 60  # captions around that of a scene; NEAREST of them, drawn anew, stand for photos of it
PHOTOS_OF_SCENE = 4  # so often
PREFERRED = 30.0  # the weight of preferences
NOVELS = 3  # the decoder learns from one passage of romance in so many; scenes are what it tells
MEASURED_SCENES = 20  # the passages of one caption in so many are kept from training
EYES = efficientnet.Eyes(class_weight=1.0)  # that the joint space learns with
LOOKING = efficientnet.Eyes(class_weight=0.7)  # and that photos are looked at with
VIEWS = 'photo', 'mirrored', 'part-0', 'part-1'  # of each photo that the joint space learns from
CAPTIONS_SHARE = 0.5  # of an image layer; the rest serves the pool
_PEOPLE = """
    man men woman women boy boys girl girls person people child children kid kids baby babies
    toddler toddlers lady ladies couple family group crowd guy guys player players he she his her
    their someone bride groom teenager teenagers adult adults chef cook worker workers workman
    workmen rider cyclist runner skier diver swimmer surfer climber hiker fisherman farmer soldier
    policeman officer doctor nurse dancer singer drummer guitarist friends father mother son
    daughter sister brother tourist tourists hand hands finger
"""
PEOPLE = frozenset(_PEOPLE.split())  # a caption with one of these speaks of people
CRANES = 134, 517  # two classes of ImageNet have this one name
SHARES = {'uni': 0.2, 'bi': 0.2, 'embedding': 0.15, 'decoder': 0.45}  # of the minutes

# What bundle.json says of each file: what it is, and what it learned from.
FILES = {
    'uni_skip.safetensors': ('uni-skip encoder', 'novels, captions, the pool'),
    'utable.npy': ('word vectors of the uni-skip encoder', 'novels, captions, the pool'),
    'bi_skip.safetensors': ('bi-skip encoder', 'novels, captions, the pool'),
    'btable.npy': ('word vectors of the bi-skip encoder', 'novels, captions, the pool'),
    'dictionary.txt': ('words of both tables', 'novels, captions, the pool'),
    'decoder.safetensors': ('story decoder', 'passages of novels and scenes, songs, marks'),
    'decoder_dictionary.txt': ('words of the decoder', 'passages of novels and scenes, songs'),
    'embedding.safetensors': ('joint space', 'Flickr8k, the pool'),
    'embedding_dictionary.txt': ('words of the joint space', 'Flickr8k, the pool'),
    'convnet.json': ('how EfficientNet-Lite2 is read', 'its weights come with a package'),
    'captions.txt': ('the pool of captions', 'written by write_captions.py'),
    stored.FILE: ('the pool in the joint space, in bytes', 'the pool, the joint space'),
    'caption_style.npy': ('c, the style of captions', 'the pool'),
    'romance_style.npy': ('b, the style of romance', 'plain passages of novels'),
    'adventure_style.npy': ('b, the style of adventure', 'plain passages of adventure novels'),
    'lyric_style.npy': ('b, the style of songs', 'songs and ballads'),
}

UNI = training_skipthoughts.SkipThoughtsOptions(
    dim_word=192,
    dim=640,
    read_eos=False,
    targets=5000,
    word_dropout=0.25,
    own_words=0.5,
    singles=0.5,
    captions=0.2,
    longest=140,
    batch_size=128 * WIDER,
    batch_words=5120 * WIDER,
    bfloat16=True,
)
BI = replace(UNI, dim=320, bidirectional=True)
DECODER = decoder.DecoderOptions(
    dim_word=256,
    dim=800,
    doutput=True,
    word_dropout=0.2,
    dropout=0.25,
    towards_mean=0.3,
    whiten=True,
    pairs=0.8,
    beta=0.1,
    batch_size=64 * WIDER,
    batch_words=4096 * WIDER,
    bfloat16=True,
)
EMBEDDING = embedding.EmbeddingOptions(
    dim_image=efficientnet.POOLED + efficientnet.CLASSES,
    dim_word=192,
    dim=512,
    unit_images=True,
    temperature=0.07,
    candidates_weight=1.5,
    dropout=0.3,
    batch_size=128,
    bfloat16=True,
)


class Recipe:
    """The stages in order. `data` holds the texts and photos, `work` all that is in between."""

    def __init__(
        self, data: Path, work: Path, out: Path, minutes: float, start: Path | None = None
    ):
        self.data, self.work, self.out, self.minutes = data, work, out, minutes
        self.text, self.start = work / 'text', start

    def training(self, stage: str, **options) -> TrainOptions:
        """A rate that falls over the stage's share of the minutes."""
        settings = {'decay': True, 'warmup': 150, 'epochs': 50, 'average': 0.999, 'tf32': GPU}
        settings |= {'lr': 1.5e-3 if GPU else 1e-3} | options
        return TrainOptions(minutes=self.minutes * SHARES[stage], **settings)

    # --- texts -----------------------------------------------------------------------------------

    def tokens(self) -> None:
        """Novels by style (two shards held out), captions (but of photos to measure on), songs."""
        novels = documents.text_files(self.data / 'novels')
        for held_out, ending in ((False, ''), (True, '_held_out')):
            files = [file for file in novels if file.name.startswith(HELD_OUT) == held_out]
            for name in ('novels', 'adventure'):
                path = self.text / f'{name}{ending}.txt'
                if not origins.is_made(path, origins.of_files([ADVENTURE, *files])):
                    books = self.books(files, adventure=name == 'adventure')
                    documents.tokenise(books, path, processes=os.cpu_count() or 1)
                if not held_out:
                    self.unname(path)
        songs = [self.data / 'lyrics' / 'lyrics.txt.xz']
        documents.tokenise_files(songs, self.text / 'lyrics.txt', 'verses')
        for style, written in SCENES.items():
            scenes = self.text / f'{style}_scenes.txt'
            if not origins.is_made(scenes, origins.of_files([written])):
                told = (passage.split(' / ') for _, passage in self.scene_passages(style))
                documents.tokenise(told, scenes)
        names = ('flickr30k', 'flickr8k', 'coco_val2017', 'coco_karpathy_test5k')
        measured = flickr8k.read_names(self.data / 'flickr8k', 'dev')
        files = [self.data / 'captions' / f'{name}.txt.xz' for name in names]
        photos = (d for file in files for d in documents.photo_captions(file, measured))
        captions = self.text / 'captions.txt'
        facts = {'photos to measure on': origins.of_words(measured)} | self.of_pool
        if not origins.is_made(captions, facts | origins.of_files(files)):
            documents.tokenise(itertools.chain(photos, self.scenes()), captions, split=False)

    def books(self, files: list[Path], adventure: bool) -> Iterator[list[str]]:
        """The books by authors of adventures, or by all others."""
        authors = prose.read_words(ADVENTURE)
        for file in files:
            for title, paragraphs in documents.titled_books(file):
                if (documents.author(title).lower() in authors) == adventure:
                    yield paragraphs

    def unname(self, path: Path) -> None:
        """Write a text of novels anew, with pronouns for names."""
        out = path.with_stem(path.stem + UNNAMED)
        if not origins.is_made(out, origins.of_files([path])):
            plain = prose.plain_words(documents.count_words([path])[0])
            lines = pronouns.without_names(lambda: documents.token_lines(path), plain)
            with (
                formats.atomic_path(out) as temporary,
                open(temporary, 'w', encoding='utf-8') as file,
            ):
                file.writelines(f'{line}\n' for line in lines)

    def scenes(self) -> Iterator[list[str]]:
        """The pool as documents of five captions of one scene, like those of one photo."""
        for captions in self.grammar.generate(0).values():
            yield from (captions[i : i + 5] for i in range(0, len(captions) - 4, 5))

    @cached_property
    def of_pool(self) -> dict[str, str]:
        """A hash of the pool, as :mod:`origins` notes it."""
        return {'the pool': origins.of_words(self.pool)}

    @cached_property
    def of_photos(self) -> dict[str, str]:
        """Hashes of the photos, of their captions, and of which are measured on."""
        return origins.of_files(path for path in sorted(self.flickr.iterdir()) if path.is_file())

    @cached_property
    def left_out(self) -> frozenset[str]:
        """Words that no vocabulary holds."""
        return prose.read_words(LEFT_OUT)

    @cached_property
    def words(self) -> Vocabulary:
        """The encoder's: all that captions often say, then what novels say most."""
        path = self.text / 'dictionary.txt'
        texts = [self.text / 'novels.txt', self.text / 'captions.txt']
        facts = {'how many words': str(ENCODER_WORDS)} | self.of_pool
        if not origins.is_made(path, facts | origins.of_files(texts)):
            in_novels, spread = documents.count_words([self.text / 'novels.txt'])
            in_captions, _ = documents.count_words([self.text / 'captions.txt'])
            always = {word for word, count in in_captions.items() if count >= 8}
            always |= {word for caption in self.pool for word in caption.split()}
            counts = in_novels + in_captions
            chosen = documents.choose_words(counts, spread, ENCODER_WORDS - 2, always=always)
            Vocabulary(('<eos>', 'UNK', *chosen)).save(path)
        return Vocabulary.load(path)

    # --- skip-thoughts ---------------------------------------------------------------------------

    def encoder(self, kind: str) -> None:
        """Train the uni or the bi encoder and put it into the bundle, or take that of `--start`."""
        if self.start:
            for name in (f'{kind}_skip.safetensors', f'{kind[0]}table.npy', 'dictionary.txt'):
                with formats.atomic_path(self.out / name) as temporary:  # which may be the same
                    shutil.copy(self.start / name, temporary)
            return
        options, seed = (UNI, 1) if kind == 'uni' else (BI, 2)
        texts = [self.corpus(name, self.words, 'encoder') for name in ('novels', 'captions')]
        units = training_skipthoughts.Units(*texts, options, seed)
        held_out = self.corpus('novels_held_out', self.words, 'encoder')
        held_out = training_skipthoughts.Units(
            held_out, None, replace(options, captions=0.0), seed=9
        )
        trained = self.work / f'{kind}_full.npz'
        files = [self.text / f'{name}.txt' for name in ('novels', 'captions', 'dictionary')]
        origins.is_made(self.work / f'{kind}.pt', origins.of_files(files))
        training_skipthoughts.fit(
            units,
            self.training(kind),
            trained,
            self.work / f'{kind}.pt',
            n_words=len(self.words),
            counts=sum(text.counts(len(self.words)) for text in texts),
            held_out=held_out,
        )
        training_skipthoughts.export(trained, self.out, self.words, 'float16')

    def leave_out(self) -> None:
        """Take the words that are left out, and their vectors, out of the encoders."""
        path = self.out / 'dictionary.txt'
        words = formats.read_lines(path)
        kept = [i for i, word in enumerate(words) if word.lower() not in self.left_out]
        if len(kept) == len(words):
            return
        for name in ('utable.npy', 'btable.npy'):
            rows = np.array(formats.open_table(self.out / name))[kept]
            write_table(self.out / name, rows.shape, 'float16', [rows])
        formats.write_text(path, ''.join(f'{words[i]}\n' for i in kept))

    @cached_property
    def thoughts(self) -> skipthoughts.Encoder:
        """The encoder as users will have it."""
        return skipthoughts.Encoder(skipthoughts.load_model(self.out, self.out))

    def corpus(self, name: str, vocabulary: Vocabulary, whose: str) -> Corpus:
        """A token file in somebody's vocabulary."""
        return Corpus.cached(self.text / f'{name}.txt', vocabulary, self.work / f'{name}_{whose}')

    # --- passages, styles and the decoder --------------------------------------------------------

    def scene_passages(self, style: str) -> list[tuple[str, str]]:
        """Captions of the pool, each with a passage or a song that was written for it."""
        known, pairs = set(self.pool), []
        for number, line in enumerate(formats.read_lines(SCENES[style]), 1):
            caption, _, passage = line.partition('\t')
            if caption not in known or not passage:
                raise ValueError(
                    f'{SCENES[style]}: line {number}: expected a caption of the pool, a tab and '
                    'a passage or a song'
                )
            pairs.append((caption, passage))
        return pairs

    def scene_pairs(
        self, style: str
    ) -> tuple[np.ndarray, np.ndarray, back_translation.BackTranslation, np.ndarray]:
        """Those passages: spans, vectors, what photos of them are told of, and which to measure on.

        A photo of a scene lies near its caption in the joint space, and so do the captions that are
        found for it. Each passage stands here for several photos.
        """
        name, written = f'{style}_scenes', self.scene_passages(style)
        text, words = Corpus.with_all_words(self.text / f'{name}.txt', self.work / f'{name}_all')
        spans = np.stack([text.documents[:-1], text.documents[1:]], 1)
        facts = origins.of_files([SCENES[style]])
        facts['the encoder'] = origins.of_encoder(self.out)
        folder = self.work / f'{name}_vectors'
        vectors = passages.encode_passages(
            text, spans, words, self.thoughts, folder, made_from=facts
        )
        captions = sorted({caption for caption, _ in written})
        row = {caption: i for i, caption in enumerate(captions)}
        of_scene = np.array([row[caption] for caption, _ in written])
        place = {caption: i for i, caption in enumerate(self.pool)}
        own = self.pool_joint[[place[caption] for caption in captions]]
        around, _ = nearest(own, self.pool_joint, AROUND)
        rng = np.random.default_rng(4)
        of_scene = np.tile(of_scene, PHOTOS_OF_SCENE)
        chosen = rng.permuted(around[of_scene], axis=1)[:, :NEAREST]
        thoughts = np.asarray(self.pool_thoughts, np.float32)
        _, _, of_style = self.all_pairs[style]
        content = np.stack([thoughts[rows].mean(0) - of_style.c for rows in chosen])
        found = replace(
            of_style,
            content=content.astype(np.float16),
            match=np.ones(len(content), np.float32),
            style=np.zeros(len(content), np.int64),
        )
        spans, vectors = (np.tile(each, (PHOTOS_OF_SCENE, 1)) for each in (spans, vectors))
        return spans, vectors, found, np.array([_is_measured(c) for c in captions])[of_scene]

    def photo_preferences(self, vocabulary: Vocabulary) -> preferences.Preferences:
        """What readers liked better of what was told of photos, in the decoder's words.

        Those of which the nearest caption is measured on are left out.
        """
        place = {caption: i for i, caption in enumerate(self.pool)}
        thoughts = np.asarray(self.pool_thoughts, np.float32)
        _, _, of_style = self.all_pairs['romance']
        marked, vectors = [], []
        for captions, texts in read_marked(PREFERENCES):
            if strange := set(captions) - place.keys():
                raise ValueError(
                    f'{PREFERENCES}: expected captions of the pool, found {min(strange)!r}'
                )
            if _is_measured(captions[0]):
                continue
            x = thoughts[[place[caption] for caption in captions]].mean(0)
            vectors.append(shift(x, of_style.c, of_style.b[0]))
            marked.append(texts)
        return preferences.Preferences.of_marked(marked, np.stack(vectors), vocabulary)

    @cached_property
    def pool_joint(self) -> np.ndarray:
        """The pool in the joint space, (N, E) float32."""
        model = load_embedding(self.out / 'embedding.safetensors', device='cpu')
        return encode_sentences(model, self.pool)

    @cached_property
    def all_scenes(self) -> dict[str, tuple]:
        """For each style of `SCENES` what :meth:`scene_pairs` gives."""
        return {style: self.scene_pairs(style) for style in SCENES}

    def spans(self, name: str) -> tuple[Corpus, Vocabulary, np.ndarray]:
        """The plain passages of a text with all its words, shuffled."""
        text, words = Corpus.with_all_words(self.text / f'{name}.txt', self.work / f'{name}_all')
        rng = np.random.default_rng(0)
        if name == 'lyrics':
            plain = prose.plain_verses(text, words, self.left_out)
            spans = prose.plain_passages(text, plain, rng, *VERSES)
        else:
            counts = dict(zip(words, text.counts(len(words)).tolist(), strict=True))
            known = prose.plain_words(counts)
            simple = prose.Prose(self.left_out, fewest=SENTENCES[0], most=SENTENCES[1])
            plain = prose.plain_sentences(text, words, known, simple)
            leaning = words.encode(prose.LEANING)
            apart = [words.encode(_capitals(group)) for group in HE_OR_SHE]
            cuts = (
                prose.plain_passages(text, plain, rng, *PASSAGES, leaning, apart)
                for _ in range(CUTS)
            )
            spans = np.unique(np.concatenate([*cuts]), axis=0)
        return text, words, np.random.default_rng(1).permutation(spans)

    def told(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The plain passages of a text, first and last sentence (P, 2), and vectors (P, D)."""
        path = self.work / f'{name}_spans.npy'
        text, words, spans = self.spans(name)
        formats.write_array(path, spans)
        folder = self.work / f'{name}_vectors'
        facts = origins.of_files([self.text / f'{name}.txt'])
        facts['the encoder'] = origins.of_encoder(self.out)
        return spans, passages.encode_passages(
            text, spans, words, self.thoughts, folder, made_from=facts
        )

    @cached_property
    def pool_thoughts(self) -> np.ndarray:
        """The thought vectors of the pool, (N, D) float16."""
        folder, fingerprint = self.work / 'pool', bundle.sha256(self.out / 'uni_skip.safetensors')
        return back_translation.encode_captions(self.pool, self.thoughts, fingerprint, folder)

    def pairs(self, style: str) -> tuple[np.ndarray, np.ndarray, back_translation.BackTranslation]:
        """Of the passages of a style those that captions fit best: spans, vectors, captions."""
        spans, vectors = self.told(STYLES[style])
        c = self.pool_thoughts.mean(0, dtype=np.float64).astype(np.float32)
        b = vectors.mean(0, dtype=np.float64).astype(np.float32)
        found = back_translation.back_translate(vectors, self.pool_thoughts, c, b, NEAREST)
        rows = back_translation.best_rows(found.match, BEST[style])
        vectors = vectors[rows]
        found = replace(found.take(rows), b=vectors.mean(0, dtype=np.float64, keepdims=True))
        return spans[rows], vectors, replace(found, b=found.b.astype(np.float32))

    @cached_property
    def all_pairs(self) -> dict[str, tuple]:
        """For each style what :meth:`pairs` gives."""
        return {style: self.pairs(style) for style in STYLES}

    def styles(self) -> None:
        """c over the pool, and each b over the passages that captions fit best."""
        formats.write_array(self.out / 'caption_style.npy', self.all_pairs['romance'][2].c)
        for style, (_, _, found) in self.all_pairs.items():
            formats.write_array(self.out / f'{style}_style.npy', found.b[0])

    def story_words(self) -> tuple[Vocabulary, np.ndarray]:
        """The decoder's vocabulary: what the passages say most; and how often they say it."""
        counts: Counter[str] = Counter()
        for style, (spans, _, _) in self.all_pairs.items():
            name = STYLES[style]
            text, words = Corpus.with_all_words(
                self.text / f'{name}.txt', self.work / f'{name}_all'
            )
            said = np.zeros(len(words), np.int64)
            for first, last in spans:
                np.add.at(said, text.words(first, last), 1)
            listed = list(words)
            counts.update({listed[i]: int(said[i]) for i in np.flatnonzero(said)})
        in_scenes, _ = documents.count_words([self.text / f'{s}_scenes.txt' for s in SCENES])
        counts.update({word: PHOTOS_OF_SCENE * count for word, count in in_scenes.items()})
        for word in [word for word in counts if word.lower() in self.left_out]:
            del counts[word]
        chosen = [word for word, _ in counts.most_common(DECODER_WORDS - 2)]
        vocabulary = Vocabulary(('<eos>', 'UNK', *chosen))
        known = np.array([counts[word] for word in vocabulary])
        known[1] = counts.total() - known.sum()
        return vocabulary, known

    def decoder(self) -> None:
        """Train the decoder to tell passages of all styles, most of them from captions like them.

        It goes on from that of `--start`, or begins at random.
        """
        distributed.join()
        if distributed.number() > 0:
            distributed.agree(0.0)  # when the files that all read are there
        vocabulary, counts = self.story_words()
        options, params, preferred = DECODER, None, None
        facts = {'the encoder': origins.of_encoder(self.out)} | self.of_pool
        facts |= {'words of the passages': origins.of_words(vocabulary)}
        if self.start:
            before, width = self.start / 'decoder.safetensors', self.pool_thoughts.shape[1]
            params, sizes = fine_tuning.start_from(before, vocabulary, counts, width)
            options = replace(
                options, **sizes, preferences_weight=PREFERRED, batch_size=options.batch_size // 2
            )
            preferred = self.photo_preferences(vocabulary)
            facts |= origins.of_files([PREFERENCES])
            if self.start.resolve() != self.out.resolve():  # where it is exchanged at the end
                facts['--start'] = origins.of_file(before)
        origins.is_made(self.work / 'decoder.pt', facts)
        told, held_out = (
            part(vocabulary, options) for part in (self.passages, self.held_out_passages)
        )
        if distributed.number() == 0:
            distributed.agree(0.0)
        decoder.fit(
            told,
            self.training('decoder', lr=8e-4 if self.start else 1e-3),
            self.work / 'decoder.npz',
            self.work / 'decoder.pt',
            n_words=len(vocabulary),
            params=params,
            preferences=preferred,
            held_out=held_out,
            vocabulary=vocabulary,
        )
        if distributed.number() > 0:
            return
        params, made = formats.read_model(self.work / 'decoder.npz')
        formats.write_model(self.out / 'decoder.safetensors', params, made, 'float16')
        vocabulary.save(self.out / 'decoder_dictionary.txt')

    def passages(
        self, vocabulary: Vocabulary, options: decoder.DecoderOptions
    ) -> passages.Passages:
        """The passages of all styles in the decoder's words."""
        texts, spans, vectors, found = [], [], [], []
        for style, (own, thoughts, pairs) in self.all_pairs.items():
            if style == 'romance':  # few
                some = np.arange(0, len(own), NOVELS)
                own, thoughts, pairs = own[some], thoughts[some], pairs.take(some)
            if style in SCENES:  # from their own vectors: stories are told as scenes are
                pairs = replace(pairs, match=np.full_like(pairs.match, np.nan))
            spans.append(own + sum(map(len, texts)))
            texts.append(self.corpus(STYLES[style], vocabulary, 'decoder'))
            vectors.append(thoughts)
            found.append(pairs)
        for style, (own, thoughts, pairs, measured) in self.all_scenes.items():
            learned = np.flatnonzero(~measured)
            spans.append(own[learned] + sum(map(len, texts)))
            texts.append(self.corpus(f'{style}_scenes', vocabulary, 'decoder'))
            vectors.append(thoughts[learned])
            found.append(pairs.take(learned))
        order = np.random.default_rng(2).permutation(sum(map(len, spans)))  # styles mixed
        joined = back_translation.BackTranslation.joined(found).take(order)
        spans, vectors = np.concatenate(spans)[order], np.concatenate(vectors)[order]
        return passages.Passages(Corpus.joined(texts), spans, vectors, options, pairs=joined)

    def held_out_passages(
        self, vocabulary: Vocabulary, options: decoder.DecoderOptions
    ) -> passages.Passages:
        """Passages of scenes that are kept from training."""
        spans, vectors, found, measured = self.all_scenes['romance']
        rows = np.flatnonzero(measured)
        text = self.corpus('romance_scenes', vocabulary, 'decoder')
        return passages.Passages(text, spans[rows], vectors[rows], options, pairs=found.take(rows))

    # --- photos ----------------------------------------------------------------------------------

    @property
    def flickr(self) -> Path:
        return self.data / 'flickr8k'

    @cached_property
    def captioned(self) -> dict[str, list[str]]:
        """The captions of every photo, those of the training split first, in its order."""
        found: dict[str, list[str]] = {n: [] for n in flickr8k.read_names(self.flickr, 'train')}
        for line in documents.read_text(self.flickr / 'captions.txt'):
            name, caption = line.split('\t')
            found.setdefault(name, []).append(caption.strip())
        return found

    @cached_property
    def training_photos(self) -> list[str]:
        """All photos with captions but those that are measured on."""
        measured = set(flickr8k.read_names(self.flickr, 'dev'))
        return [name for name in self.captioned if name not in measured]

    def seen(self, view: str) -> dict[str, np.ndarray]:
        """What the network makes of every photo: ``pooled`` (P, 1280), ``logits`` (P, 1000).

        Views are the photo as it is, mirrored, and random parts of it, some of them mirrored.
        """
        path = self.work / 'seen' / f'{view}.npz'
        if not origins.is_made(path, self.of_photos):
            net = efficientnet.EfficientNetLite2(efficientnet.read_weights()).eval()
            photos, outputs = flickr8k.read_photos(self.flickr), []
            rng = np.random.default_rng(int(view[-1]) if view.startswith('part') else 0)
            with torch.inference_mode():
                for name in tqdm(sorted(self.captioned), desc=view, unit=' photos'):
                    im = torch.from_numpy(_viewed(photos[name], view, rng))
                    outputs.append(net.see(net.prepare(im)))
            pooled, logits = (torch.cat(part).half().numpy() for part in zip(*outputs, strict=True))
            with formats.atomic_path(path) as temporary:
                np.savez(temporary, pooled=pooled, logits=logits)
        with np.load(path) as file:
            return dict(file)

    def features(self, view: str, names: list[str]) -> np.ndarray:
        """The features (P, F) of photos in a view, unit rows."""
        rows = {name: row for row, name in enumerate(sorted(self.captioned))}
        found, chosen = self.seen(view), [rows[name] for name in names]
        net = efficientnet.EfficientNetLite2(efficientnet.read_weights(), EYES)
        parts = (torch.from_numpy(found[n][chosen].astype(np.float32)) for n in found)
        return unit_rows(net.features(*parts).numpy())

    def embedding(self) -> None:
        """Train the joint space on captioned photos and on the classes that the network knows.

        Photos come as the network sees them and, for the second image layer, as VGG-19 does. A
        photo also chooses among captions of the pool, by their words, so that the pool's words
        have their places where no photo of the training set shows them; and so does a class, of
        which photos are imagined and captions written by the grammar.
        """
        names = self.training_photos
        captions, photo = self.captions_of(names)
        pool = [np.array(self.caption_words.encode(text), np.int64) for text in self.pool]
        among = Candidates(pool, self.matches)
        views = [self.features(view, names) for view in VIEWS]
        views += [
            flickr8k.read_fc7(self.flickr / f'fc7_{n}.npz') for n in ('train', 'train_flipped')
        ]
        sources = []
        for seed, features in enumerate(views):
            known = np.flatnonzero(photo < len(features))
            chosen = [captions[i] for i in known]
            sources.append(
                embedding.Pairs(
                    chosen, photo[known], features, EMBEDDING, seed, once=True, candidates=among
                )
            )
        texts, labels = zip(*self.class_pairs(), strict=True)
        among = Candidates(pool, self.class_matches)
        seen, weights = self.seen('photo'), efficientnet.read_weights()['_fc.weight'].numpy()
        people = self.show_people()
        settings = np.flatnonzero(~people), np.flatnonzero(people)
        classes = ImaginedPhotos(seen['pooled'], seen['logits'], weights, settings, EYES)
        sources.append(
            embedding.Pairs(
                texts, np.array(labels), classes, EMBEDDING, 9, once=True, candidates=among
            )
        )
        names = flickr8k.read_names(self.flickr, 'dev')
        measured = CaptionedPhotos.from_files(
            self.flickr / 'captions.txt', names, self.features('photo', names)
        )
        facts = self.of_photos | self.of_pool
        origins.is_made(
            self.work / 'embedding.pt', facts | origins.of_files([self.out / 'utable.npy'])
        )
        embedding.fit(
            sources,
            self.training('embedding', lr=1e-3, clip=2.0, weight_decay=0.1),
            self.work / 'embedding.npz',
            self.work / 'embedding.pt',
            vocabulary=self.caption_words,
            params=self.embedding_start(),
            report=lambda model: measured.recalls(model, self.caption_words),
        )

    def class_pairs(self) -> list[tuple[np.ndarray, int]]:
        """Captions of the grammar as word indices, each with its class and setting."""
        return [
            (np.array(self.caption_words.encode(text), np.int64), label)
            for label, texts in enumerate(self.set_captions)
            for text in texts
        ]

    def show_people(self) -> np.ndarray:
        """Which photos show people, as most of their captions say; in order of their names."""
        share = [
            np.mean([_speaks_of_people(c) for c in self.captioned[n]])
            for n in sorted(self.captioned)
        ]
        return np.array(share) > 0.5

    @property
    def set_captions(self) -> list[list[str]]:
        """The captions of each class that speak of no people, then those that do, (2 C,) lists."""
        return [
            [text for text in texts if _speaks_of_people(text) == people]
            for people in (False, True)
            for texts in self.class_captions
        ]

    def image_layers(self) -> None:
        """Mix both image layers with ones that learn anew from what people say, and export.

        Photos are found better then, and the pool serves as well as before.
        """
        params, options = formats.read_model(self.work / 'embedding.npz')
        names = self.training_photos
        captions, photo = self.captions_of(names)
        vectors = encode(embedding.JointEmbedding(params, EMBEDDING).eval(), captions)
        own = [self.features(view, names) for view in VIEWS]
        fc7 = [flickr8k.read_fc7(self.flickr / f'fc7_{n}.npz') for n in ('train', 'train_flipped')]
        for layer, views in {'ff_image': own, 'ff_image_vgg19': fc7}.items():
            known = np.flatnonzero(photo < len(views[0]))
            facts = self.of_photos | origins.of_files([self.work / 'embedding.npz'])
            origins.is_made(self.work / f'{layer}.pt', facts)
            learned = fit_image_layer(
                views,
                vectors[known],
                photo[known],
                TrainOptions(epochs=30, lr=1e-3, decay=True, weight_decay=0.1, average=0.99),
                self.work / f'{layer}.pt',
                ImageLayerOptions(dropout=0.6),
            )
            for name, value in zip((f'{layer}_W', f'{layer}_b'), learned, strict=True):
                params[name] = CAPTIONS_SHARE * value + (1 - CAPTIONS_SHARE) * params[name]
        efficientnet.write_eyes(self.out / 'convnet.json', LOOKING)
        formats.write_model(self.out / 'embedding.safetensors', params, options, 'float16')
        self.caption_words.save(self.out / 'embedding_dictionary.txt')

    def embedding_start(self) -> dict[str, np.ndarray]:
        """Word vectors from the uni encoder, the rest random, an image layer for each network."""
        params = embedding.initial_params(EMBEDDING, len(self.caption_words), 0)
        known = Vocabulary.load(self.out / 'dictionary.txt')
        table = np.array(formats.open_table(self.out / 'utable.npy'), np.float32)
        for index, word in enumerate(self.caption_words):
            params['Wemb'][index] = table[known.encode([word])[0]]
        return embedding.with_second_images(params, 4096, 1)

    @cached_property
    def caption_words(self) -> Vocabulary:
        """The embedding's: what captions of the training photos often say, the pool, classes."""
        names = self.training_photos
        counts = Counter(w for n in names for text in self.captioned[n] for w in text.split())
        ours = Counter(word for caption in self.pool for word in caption.split())
        ours.update(w for texts in self.class_captions for text in texts for w in text.split())
        chosen = {word for word, count in counts.items() if count >= 3} | set(ours)
        chosen = {word for word in chosen if word.lower() not in self.left_out}
        counts += ours
        return Vocabulary(('<eos>', 'UNK', *sorted(chosen, key=lambda w: (-counts[w], w))))

    @cached_property
    def matches(self) -> Matches:
        """How well the pool fits the training photos."""
        own = [self.captioned[name] for name in self.training_photos]
        return Matches.of(own, self.pool, self.content_words)

    @cached_property
    def class_matches(self) -> Matches:
        """How well the pool fits the classes."""
        return Matches.of(self.set_captions, self.pool, self.content_words)

    def content_words(self, caption: str) -> list[str]:
        """The words that carry the meaning of a caption, punctuation apart."""
        return [w for w in self.grammar.content_words(caption) if w[0].isalnum()]

    def captions_of(self, names: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """All captions of photos as word indices, and each one's photo."""
        pairs = [(row, text) for row, name in enumerate(names) for text in self.captioned[name]]
        texts = [np.array(self.caption_words.encode(text), np.int64) for _, text in pairs]
        return texts, np.array([row for row, _ in pairs])

    @cached_property
    def class_captions(self) -> list[list[str]]:
        """Captions of the grammar for each class of ImageNet."""
        names = list(documents.read_text(self.data / 'imagenet' / 'classes.txt'))
        names[CRANES[0]] = 'crane (bird)'
        return [self.grammar.captions_for_label(name, 60) for name in names]

    # --- the pool and the bundle -----------------------------------------------------------------

    @cached_property
    def grammar(self):
        """The grammar that writes the pool, a script beside this one."""
        path = Path(__file__).with_name('write_captions.py')
        spec = importlib.util.spec_from_file_location('write_captions', path)
        module = importlib.util.module_from_spec(spec)
        sys.modules['write_captions'] = module
        spec.loader.exec_module(module)
        return module

    @cached_property
    def pool(self) -> list[str]:
        """The captions of the bundle; written by the grammar if they are not there."""
        path = self.out / 'captions.txt'
        if not path.exists():
            self.grammar.write_pool(path, self.grammar.generate(0))
        return formats.read_lines(path)

    def vectors(self) -> None:
        """Lead the pool into the joint space, so that nobody has to at a first start."""
        model = load_embedding(self.out / 'embedding.safetensors', device='cpu')
        vectors = encode_sentences(model, self.pool, verbose=True)
        stored.write(self.out / stored.FILE, model, self.pool, vectors)

    def describe(self) -> None:
        """Write bundle.json: what each file is, its size and sha256, and how it was trained."""
        files = {}
        for name, (what, learned_from) in FILES.items():
            path = self.out / name
            files[name] = {'what': what, 'learned from': learned_from}
            files[name] |= {'bytes': path.stat().st_size, 'sha256': bundle.sha256(path)}
            if path.suffix == '.safetensors' and name != stored.FILE:
                files[name]['made'] = formats.read_model(path)[1]
        widths = {'D': UNI.dim + 2 * BI.dim, 'E': EMBEDDING.dim, 'F': EMBEDDING.dim_image}
        card = {'format': 1, 'case': 'as written', 'widths': widths, 'files': files}
        before = bundle.read_card(self.out) or {}
        card |= {'search': before['search']} if 'search' in before else {}
        with tempfile.TemporaryDirectory() as folder:  # without the card of before
            for name in FILES:
                os.symlink((self.out / name).absolute(), Path(folder, name))
            card['known'] = check.known_vectors(generate.load_all(folder))
        formats.write_text(self.out / 'bundle.json', json.dumps(card, indent=1) + '\n')

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Name and function of each stage, in order."""
        yield 'tokens', self.tokens
        yield 'uni', lambda: self.encoder('uni')
        yield 'bi', lambda: self.encoder('bi')
        yield 'words', self.leave_out
        yield 'styles', self.styles
        yield 'embedding', self.embedding
        yield 'images', self.image_layers
        yield 'vectors', self.vectors
        yield 'decoder', self.decoder
        yield 'describe', self.describe


def _is_measured(caption: str) -> bool:
    """By the caption alone: what is kept from one training is kept from all that go on from it."""
    return zlib.crc32(caption.encode()) % MEASURED_SCENES == 0


def _capitals(words: str) -> list[str]:
    """Words as they stand inside a sentence and at its beginning."""
    return [*words.split(), *words.title().split()]


def _speaks_of_people(caption: str) -> bool:
    return not PEOPLE.isdisjoint(caption.lower().split())


def _viewed(jpeg: bytes, view: str, rng: np.random.Generator) -> np.ndarray:
    """A photo in a view, as the network takes it: (1, 3, 260, 260)."""
    photo = Image.fromarray(read_rgb(io.BytesIO(jpeg)))
    if view.startswith('part'):
        share, left, top = rng.uniform(0.6, 0.95), rng.random(), rng.random()
        width, height = photo.size
        box = np.array([left, top, left, top]) * (1 - share) + [0, 0, share, share]
        photo = photo.crop(tuple(box * [width, height, width, height]))
    _, im = load_image(photo, side=efficientnet.INPUT_SIZE)
    if view == 'mirrored' or (view.startswith('part') and rng.random() < 0.5):
        im = np.ascontiguousarray(im[..., ::-1])
    return im


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='folder of texts and photos')
    parser.add_argument(
        '--minutes', type=float, default=180, help='budget of all stages (%(default)s)'
    )
    parser.add_argument(
        '--work', type=Path, default=Path('runs/default'), help='folder of intermediate files'
    )
    parser.add_argument('--out', type=Path, default=Path('models'), help='output folder')
    parser.add_argument(
        '--start', type=Path, help='bundle: its encoders are kept, its decoder is fine-tuned'
    )
    parser.add_argument('--only', nargs='+', metavar='STAGE', help='run only these stages')
    args = parser.parse_args()
    recipe = Recipe(args.data, args.work, args.out, args.minutes, args.start)
    for name, stage in recipe.stages():
        if not args.only or name in args.only:
            print(f'--- {name}', file=sys.stderr)
            stage()


if __name__ == '__main__':
    run(main)
