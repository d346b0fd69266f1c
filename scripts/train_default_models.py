"""Train the default bundle, from texts and photos to the files in models/.

Each stage is skipped if its result is there, and goes on from its checkpoint if it was
interrupted, so the same command can be given again until all is done. Minutes are shared out among
the stages that learn; a stage that used its share can be given more by a larger number. Needs the
extra `eval`. A GPU is used where there is one, with larger batches; a checkpoint goes on only where
it was begun.

Two processes, one on each core, with --only and OMP_NUM_THREADS=1, are faster than one with two
threads; GLIBC_TUNABLES=glibc.malloc.hugetlb=1 saves a tenth of the time on Linux.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from storyteller import bundle, formats, generate, selfcheck, skipthoughts, style
from storyteller.captions import nearest
from storyteller.command_line import run
from storyteller.convnet import Net, build_convnet, compute_features
from storyteller.images import load_image
from storyteller.layers import unit_rows
from storyteller.text import Vocabulary
from storyteller.training import convnet, corpus, decoder, documents, embedding, folds, passages
from storyteller.training import photos as photo_files
from storyteller.training import skipthoughts as training_skipthoughts
from storyteller.training.captioned import CaptionedPhotos, encode
from storyteller.training.corpus import Corpus
from storyteller.training.image_layer import ImageLayerOptions, fit_image_layer
from storyteller.training.matching import Candidates, Matches
from storyteller.training.options import TrainOptions
from storyteller.training.recipe import Recipe as NetworkRecipe

ENCODER_WORDS = 16_000
DECODER_WORDS = 12_000
GPU = torch.cuda.is_available()
WIDER = 4 if GPU else 1  # a step of models as small as these leaves most of a GPU idle
MOST_PASSAGES = 300_000 if GPU else 120_000  # on a GPU all there are
PASSAGES = 80, 110  # words of those that a style is the mean of; stories get about as long
NEAREST = 100  # captions that a story is told of
BLEND = 0.5  # the decoder is so much of the last stage, and the rest of the stage before it
CAPTIONS_SHARE = 0.3  # of an image layer; the rest serves the pool
VIEWS = 'fc7_train', 'fc7_train_flipped'  # of the photos, and of most of them mirrored
SHARES = {
    'uni': 0.115,
    'bi': 0.1,
    'embedding': 0.035,
    'labels': 0.095,
    'convnet': 0.22,
    'decoder': 0.215,
    'repeats': 0.22,
}

# What bundle.json says of each file: what it is, and what it learned from.
FILES = {
    'uni_skip.safetensors': ('uni-skip encoder', 'novels, captions, the pool'),
    'utable.npy': ('word vectors of the uni-skip encoder', 'novels, captions, the pool'),
    'bi_skip.safetensors': ('bi-skip encoder', 'novels, captions, the pool'),
    'btable.npy': ('word vectors of the bi-skip encoder', 'novels, captions, the pool'),
    'dictionary.txt': ('words of both tables', 'novels, captions, the pool'),
    'decoder.safetensors': ('story decoder', 'passages of novels'),
    'decoder_dictionary.txt': ('words of the decoder', 'novels'),
    'embedding.safetensors': ('joint space', 'Flickr8k, Tiny ImageNet, the pool'),
    'embedding_dictionary.txt': ('words of the joint space', 'Flickr8k, the pool'),
    'convnet.safetensors': ('narrow VGG network', 'Tiny ImageNet, Flickr8k'),
    'captions.txt': ('the pool of captions', 'written by write_captions.py'),
    'caption_style.npy': ('c, the style of captions', 'the pool'),
    'romance_style.npy': ('b, the style of romance', 'narrative passages of novels'),
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
    word_dropout=0.25,
    towards_mean=0.5,
    whiten=True,
    batch_size=64 * WIDER,
    batch_words=6144 * WIDER,
    bfloat16=True,
)
UNLOOPED = replace(DECODER, repeats=2.0, repeats_beam=6)  # for the last stage
NETWORK = NetworkRecipe(
    label_batch=128 * WIDER,
    captioned_batch=128 if GPU else 64,
    labelled_batch=128 if GPU else 32,
    choice_weight=0.5,
    label_crop=0.5,
    crop=0.65,
    paste=0.8,
    distil_paste=0.6,
    erase=0.4,
    folds=12,  # the photos of one of them are kept from the network
)
EMBEDDING = embedding.EmbeddingOptions(
    dim_image=convnet.NARROW.dim,
    dim_word=192,
    dim=512,
    unit_images=True,
    temperature=0.08,
    candidates_weight=2.0,
    dropout=0.3,
    batch_size=128,
    bfloat16=True,
)


class Recipe:
    """The stages in order. `data` holds the texts and photos, `work` all that is in between."""

    def __init__(self, data: Path, work: Path, out: Path, minutes: float):
        self.data, self.work, self.out, self.minutes = data, work, out, minutes
        self.text = work / 'text'

    def training(self, stage: str, **options) -> TrainOptions:
        """A rate that falls over the stage's share of the minutes."""
        settings = {'decay': True, 'warmup': 150, 'epochs': 50, 'average': 0.999, 'tf32': GPU}
        settings |= {'lr': 1.5e-3 if GPU else 1e-3} | options
        return TrainOptions(minutes=self.minutes * SHARES[stage], **settings)

    # --- texts -----------------------------------------------------------------------------------

    def tokens(self) -> None:
        """Novels (one shard held out), captions (photos for measuring left out, ours) and songs."""
        novels = documents.text_files(self.data / 'novels')
        held_out = [file for file in novels if file.name.startswith('romance-13')]
        training = [file for file in novels if file not in held_out]
        documents.tokenise_files(training, self.text / 'novels.txt')
        documents.tokenise_files(held_out, self.text / 'novels_held_out.txt')
        songs = [self.data / 'lyrics' / 'lyrics.txt.xz']
        documents.tokenise_files(songs, self.text / 'lyrics.txt', 'verses')
        names = ('flickr30k', 'flickr8k', 'coco_val2017', 'coco_karpathy_test5k')
        measured = list(documents.read_text(self.data / 'flickr8k' / 'dev.txt'))
        files = [self.data / 'captions' / f'{name}.txt.xz' for name in names]
        photos = (d for file in files for d in documents.photo_captions(file, measured))
        captions = self.text / 'captions.txt'
        if not captions.exists():
            documents.tokenise(itertools.chain(photos, self.scenes()), captions, split=False)

    def scenes(self) -> Iterator[list[str]]:
        """The pool as documents of five captions of one scene, like those of one photo."""
        for captions in self.grammar.generate(0).values():
            yield from (captions[i : i + 5] for i in range(0, len(captions) - 4, 5))

    @cached_property
    def words(self) -> Vocabulary:
        """The encoder's: all that captions often say, then what novels say most."""
        path = self.text / 'dictionary.txt'
        if not path.exists():
            in_novels, spread = documents.count_words([self.text / 'novels.txt'])
            in_captions, _ = documents.count_words([self.text / 'captions.txt'])
            always = {word for word, count in in_captions.items() if count >= 8}
            always |= {word for caption in self.pool for word in caption.split()}
            counts = in_novels + in_captions
            chosen = documents.choose_words(counts, spread, ENCODER_WORDS - 2, always=always)
            Vocabulary(('<eos>', 'UNK', *chosen)).save(path)
        return Vocabulary.load(path)

    @cached_property
    def story_words(self) -> Vocabulary:
        """The decoder's: what novels say most, of names only those of several books."""
        path = self.text / 'decoder_dictionary.txt'
        if not path.exists():
            counts, spread = documents.count_words([self.text / 'novels.txt'])
            chosen = documents.choose_words(counts, spread, DECODER_WORDS - 2)
            Vocabulary(('<eos>', 'UNK', *chosen)).save(path)
        return Vocabulary.load(path)

    def corpus(self, name: str, vocabulary: Vocabulary | None = None) -> Corpus:
        """A token file in the encoder's vocabulary, or in another."""
        folder = self.work / (name if vocabulary is None else f'{name}_for_decoder')
        return Corpus.cached(self.text / f'{name}.txt', vocabulary or self.words, folder)

    # --- skip-thoughts ---------------------------------------------------------------------------

    def encoder(self, kind: str) -> None:
        """Train the uni or the bi encoder and put it into the bundle."""
        options, seed = (UNI, 1) if kind == 'uni' else (BI, 2)
        texts = self.corpus('novels'), self.corpus('captions')
        units = training_skipthoughts.Units(*texts, options, seed)
        held_out = training_skipthoughts.Units(
            self.corpus('novels_held_out'), None, replace(options, captions=0.0), seed=9
        )
        trained = self.work / f'{kind}_full.npz'
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

    @cached_property
    def thoughts(self) -> skipthoughts.Encoder:
        """The encoder as users will have it."""
        return skipthoughts.Encoder(skipthoughts.load_model(self.out, self.out))

    # --- the decoder and the styles --------------------------------------------------------------

    def passages(self, name: str, options: decoder.DecoderOptions, most: int) -> passages.Passages:
        """So many passages of a token file, drawn at random, with their vectors."""
        texts, told = self.corpus(name), self.corpus(name, self.story_words)
        rng = np.random.default_rng(0)
        spans = rng.permutation(corpus.passages(texts, rng))
        unknown = np.concatenate([[0], np.cumsum(told.tokens == 1)])[told.sentences]
        length = told.sentences[spans[:, 1]] - told.sentences[spans[:, 0]]
        spans = spans[unknown[spans[:, 1]] - unknown[spans[:, 0]] <= 0.06 * length]
        spans = spans[:most]
        vectors = passages.encode_passages(
            texts, spans, self.words, self.thoughts, self.work / f'{name}_vectors'
        )
        return passages.Passages(told, spans, vectors, options)

    def story_thoughts(self) -> np.ndarray:
        """What stories will be told of, (N, D): each training photo, in each style.

        The captions of a photo are those nearest to where VGG-19's features put it, since the
        network of our own comes later.
        """
        trained, _ = formats.read_model(self.work / 'embedding.npz')
        model = embedding.JointEmbedding(trained, EMBEDDING).eval()
        real = self.real_features()
        places = real @ trained['ff_image_vgg19_W'] + trained['ff_image_vgg19_b']
        chosen, _ = nearest(unit_rows(places), self.sentences(model, self.pool), NEAREST)
        pool = self.thoughts.encode(self.pool, verbose=False, tokenised=True)
        own = np.stack([pool[rows].mean(0) for rows in chosen])
        c, *styles = (
            np.load(self.out / f'{name}_style.npy') for name in ('caption', 'romance', 'lyric')
        )
        return np.concatenate([style.shift(own, c, b) for b in styles])

    def decoder(self) -> None:
        """Train the decoder on the passages of the novels, then also to not repeat itself."""
        thoughts = self.story_thoughts()  # before all that takes time: it needs other stages
        self.told('decoder', DECODER, self.training('decoder'))
        trained, _ = formats.read_model(self.work / 'decoder.npz')
        training = self.training('repeats', lr=5e-4, warmup=50, average=0.99)
        self.told('repeats', UNLOOPED, training, trained, thoughts)
        params, options = formats.read_model(self.work / 'repeats.npz')
        for name, before in trained.items():
            params[name] = BLEND * params[name] + (1 - BLEND) * before
        formats.write_model(self.out / 'decoder.safetensors', params, options, 'float16')
        self.story_words.save(self.out / 'decoder_dictionary.txt')

    def told(
        self,
        stage: str,
        options: decoder.DecoderOptions,
        training: TrainOptions,
        params: dict[str, np.ndarray] | None = None,
        thoughts: np.ndarray | None = None,
    ) -> None:
        """A stage of the decoder, from random weights or from `params`."""
        decoder.fit(
            self.passages('novels', options, MOST_PASSAGES),
            training,
            self.work / f'{stage}.npz',
            self.work / f'{stage}.pt',
            n_words=len(self.story_words),
            params=params,
            thoughts=thoughts,
            held_out=self.passages('novels_held_out', options, 4096),
        )

    def styles(self) -> None:
        """c over the pool, b over narrative passages of novels and over songs."""
        novels, songs = self.corpus('novels'), self.corpus('lyrics')
        for name, texts in (
            ('caption', self.pool),
            ('romance', corpus.narrative_passages(novels, self.words, *PASSAGES)),
            ('lyric', corpus.narrative_passages(songs, self.words, *PASSAGES, most_quoted=1.0)),
        ):
            vector = style.mean_vector(self.thoughts, texts)
            formats.write_array(self.out / f'{name}_style.npy', vector)

    # --- photos ----------------------------------------------------------------------------------

    def embedding(self) -> None:
        """Train the joint space on captioned photos as VGG-19 sees them, and on class names.

        A photo also chooses among captions of the pool, by their words, so that the pool's words
        have their places where no photo of the training set shows them.

        Until there is a network of our own, a class of the labelled photos is seen as a direction
        of its own; its captions teach the sentence encoder what cats and coffee are.
        """
        flickr = self.data / 'flickr8k'
        captions, photo = self.captions_of(photo_files.read_names(flickr, 'train'))
        classes = [
            (np.array(self.caption_words.encode(text), np.int64), label)
            for label, texts in enumerate(self.label_captions)
            for text in texts
        ]
        texts, labels = zip(*classes, strict=True)
        size = (len(self.label_captions), EMBEDDING.dim_image)
        codes = unit_rows(np.random.default_rng(0).normal(size=size).astype(np.float32))
        pool = [np.array(self.caption_words.encode(text), np.int64) for text in self.pool]
        among = Candidates(pool, self.class_matches)
        sources = [
            embedding.Pairs(
                texts, np.array(labels), codes, EMBEDDING, 9, once=True, candidates=among
            )
        ]
        among = Candidates(pool, self.matches)
        for seed, name in enumerate(VIEWS):
            features = self.real_features(name)
            known = np.flatnonzero(photo < len(features))
            chosen = [captions[i] for i in known]
            sources.append(
                embedding.Pairs(
                    chosen, photo[known], features, EMBEDDING, seed, once=True, candidates=among
                )
            )
        names = photo_files.read_names(flickr, 'dev')
        features = photo_files.read_fc7(flickr / 'fc7_dev.npz').numpy()
        measured = CaptionedPhotos.from_files(flickr / 'captions.txt', names, features)
        embedding.fit(
            sources,
            self.training('embedding', lr=1e-3, clip=2.0, weight_decay=0.1),
            self.work / 'embedding.npz',
            self.work / 'embedding.pt',
            vocabulary=self.caption_words,
            params=self.embedding_start(),
            report=lambda model: measured.recalls(model, self.caption_words),
        )

    def network(self) -> folds.Stages:
        """The stages of our network, which learns the places that photos have in the joint space.

        A captioned photo has the place that VGG-19's features give it, a labelled one that of the
        mean caption of its class, each halfway to where the pool's captions draw it; both also
        choose among these.
        """
        run = self.work / 'convnet'
        trained, _ = formats.read_model(self.work / 'embedding.npz')
        real = self.real_features()
        places = real @ trained['ff_image_vgg19_W'] + trained['ff_image_vgg19_b']
        with torch.no_grad():
            model = embedding.JointEmbedding(trained, EMBEDDING).eval()
            means = [self.sentences(model, texts).mean(0) for texts in self.label_captions]
            vectors = self.sentences(model, self.pool)
        for name, own, matches in (
            ('places', places, self.matches),
            ('class_places', np.stack(means), self.class_matches),
        ):
            drawn = unit_rows(own) + matches.places(vectors)
            formats.write_array(run / f'{name}.npy', unit_rows(drawn))
        length = {'epochs': 2000, 'weight_decay': 0.05, 'save_minutes': 6}
        labels = replace(NETWORK.labels, minutes=self.minutes * SHARES['labels'], **length)
        labels = replace(labels, lr=2e-3 if GPU else 1e-3, average=0.9995)
        fold = replace(NETWORK.fold, minutes=self.minutes * SHARES['convnet'], **length)
        fold = replace(fold, average=0.9995)
        return folds.Stages(
            self.data,
            run,
            replace(NETWORK, labels=labels, fold=fold),
            targets=run / 'places.npy',
            class_targets=run / 'class_places.npy',
            pool=folds.Pool(torch.from_numpy(vectors), self.matches, self.class_matches),
        )

    def convnet(self) -> None:
        """Train our network; a twelfth of the captioned photos is kept from it."""
        self.network().fold(0)
        params, options = formats.read_model(self.work / 'convnet' / 'fold0.safetensors')
        formats.write_model(self.out / 'convnet.safetensors', params, options, 'float16')

    def image_layer(self) -> None:
        """Fit the joint space's layer for our network, in closed form, and export the space.

        To the captioned photos' places and to labelled photos that the network did not train on.
        """
        net, run = build_convnet(self.out / 'convnet.safetensors'), self.work / 'convnet'
        names = photo_files.read_names(self.data / 'flickr8k', 'train')
        features = folds.photo_features(net, photo_files.read_photos(self.data / 'flickr8k'), names)
        labelled, classes = self.labelled_features(net)
        seen = unit_rows(np.concatenate([features, labelled]))
        wanted = np.load(run / 'places.npy'), np.load(run / 'class_places.npy')[classes]
        wanted = np.concatenate(wanted)
        middle, target = seen.mean(0), wanted.mean(0)
        params, options = formats.read_model(self.work / 'embedding.npz')
        params['ff_image_W'] = folds.ridge(seen - middle, wanted - target, 0.1)
        params['ff_image_b'] = target - middle @ params['ff_image_W']
        # Also by what people say: photos are found better, and the pool serves as well as before.
        captions, photo = self.captions_of(names)
        vectors = encode(embedding.JointEmbedding(params, EMBEDDING).eval(), captions)
        real = [self.real_features(name) for name in VIEWS]
        for layer, views in {'ff_image': [unit_rows(features)], 'ff_image_vgg19': real}.items():
            learned = fit_image_layer(
                views,
                vectors,
                photo,
                TrainOptions(epochs=50, lr=1e-3, decay=True, weight_decay=0.1, average=0.99),
                self.work / f'{layer}.pt',
                ImageLayerOptions(dropout=0.6),
            )
            for name, value in zip((f'{layer}_W', f'{layer}_b'), learned, strict=True):
                params[name] = CAPTIONS_SHARE * value + (1 - CAPTIONS_SHARE) * params[name]
        formats.write_model(self.out / 'embedding.safetensors', params, options, 'float16')
        self.caption_words.save(self.out / 'embedding_dictionary.txt')

    def real_features(self, name: str = VIEWS[0]) -> np.ndarray:
        """VGG-19's features of the training photos, (P, 4096)."""
        return photo_files.read_fc7(self.data / 'flickr8k' / f'{name}.npz').numpy()

    def embedding_start(self) -> dict[str, np.ndarray]:
        """Word vectors from the uni encoder, the rest random, an image layer for each network."""
        params = embedding.initial_params(EMBEDDING, len(self.caption_words), 0)
        table = formats.read_model(self.work / 'uni_full.npz')[0]['Wemb']
        for index, word in enumerate(self.caption_words):
            params['Wemb'][index] = table[self.words.encode([word])[0]]
        return embedding.with_second_images(params, 4096, 1)

    @cached_property
    def caption_words(self) -> Vocabulary:
        """The embedding's: what the captions of the training photos say, the pool and labels."""
        counts: Counter[str] = Counter()
        for captions in self.captioned('train').values():
            counts.update(word for caption in captions for word in caption.split())
        ours = Counter(word for caption in self.pool for word in caption.split())
        ours.update(w for texts in self.label_captions for text in texts for w in text.split())
        chosen = {word for word, count in counts.items() if count >= 3} | set(ours)
        counts += ours
        return Vocabulary(('<eos>', 'UNK', *sorted(chosen, key=lambda w: (-counts[w], w))))

    @cached_property
    def matches(self) -> Matches:
        """How well the pool fits the training photos."""
        own = list(self.captioned('train').values())
        return Matches.of(own, self.pool, self.content_words)

    @cached_property
    def class_matches(self) -> Matches:
        """How well the pool fits the classes of the labelled photos."""
        return Matches.of(self.label_captions, self.pool, self.content_words)

    def content_words(self, caption: str) -> list[str]:
        """The words that carry the meaning of a caption, punctuation apart."""
        return [w for w in self.grammar.content_words(caption) if w[0].isalnum()]

    def captioned(self, split: str) -> dict[str, list[str]]:
        """The captions of each photo of a split, in its order."""
        found = {name: [] for name in photo_files.read_names(self.data / 'flickr8k', split)}
        for line in documents.read_text(self.data / 'flickr8k' / 'captions.txt'):
            name, caption = line.split('\t')
            if name in found:
                found[name].append(caption.strip())
        return found

    def captions_of(self, names: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """All captions of the training photos as word indices, and each one's photo."""
        by_photo = self.captioned('train')
        pairs = [(row, caption) for row, name in enumerate(names) for caption in by_photo[name]]
        texts = [np.array(self.caption_words.encode(caption), np.int64) for _, caption in pairs]
        return texts, np.array([row for row, _ in pairs])

    @cached_property
    def label_captions(self) -> list[list[str]]:
        """Captions of the grammar for each class of the labelled photos."""
        lines = documents.read_text(self.data / 'tinyimagenet' / 'classes.txt')
        return [self.grammar.captions_for_label(line.split('\t')[1], 120) for line in lines]

    def labelled_features(self, net: Net) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, F) and classes (N,) of labelled photos that no network trained on."""
        held_out = photo_files.read_labelled(sorted((self.data / 'tinyimagenet').glob('val-*')))
        pictures = (picture.permute(1, 2, 0).numpy() for picture in held_out.pixels)
        inputs = (load_image(picture)[1] for picture in pictures)
        features = np.concatenate([compute_features(net, im) for im in inputs])
        return features, held_out.labels.numpy()

    def sentences(self, model: embedding.JointEmbedding, captions: list[str]) -> np.ndarray:
        """Unit vectors (n, E) of captions by an embedding in training."""
        return encode(model, [self.caption_words.encode(text) for text in captions])

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
            self.grammar.main(['--out', str(path)])
        return formats.read_lines(path)

    def describe(self) -> None:
        """Write bundle.json: what each file is, its size and sha256, and how it was trained."""
        files = {}
        for name, (what, learned_from) in FILES.items():
            path = self.out / name
            files[name] = {'what': what, 'learned from': learned_from}
            files[name] |= {'bytes': path.stat().st_size, 'sha256': bundle.sha256(path)}
            if path.suffix == '.safetensors':
                files[name]['made'] = formats.read_model(path)[1]
        widths = {'D': UNI.dim + 2 * BI.dim, 'E': EMBEDDING.dim, 'F': EMBEDDING.dim_image}
        card = {'format': 1, 'case': 'as written', 'widths': widths, 'files': files}
        before = bundle.read_card(self.out) or {}
        card |= {'search': before['search']} if 'search' in before else {}
        with tempfile.TemporaryDirectory() as folder:  # without the card of before
            for name in FILES:
                os.symlink((self.out / name).absolute(), Path(folder, name))
            card['known'] = selfcheck.known_vectors(generate.load_all(folder))
        formats.write_text(self.out / 'bundle.json', json.dumps(card, indent=1) + '\n')

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Name and function of each stage, in order."""
        yield 'tokens', self.tokens
        yield 'uni', lambda: self.encoder('uni')
        yield 'bi', lambda: self.encoder('bi')
        yield 'styles', self.styles
        yield 'embedding', self.embedding
        yield 'decoder', self.decoder
        yield 'convnet', self.convnet
        yield 'images', self.image_layer
        yield 'describe', self.describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='the folder of texts and photos')
    parser.add_argument('--minutes', type=float, default=360, help='for all stages (%(default)s)')
    parser.add_argument('--work', type=Path, default=Path('runs/default'), help='in-between files')
    parser.add_argument('--out', type=Path, default=Path('models'), help='the bundle')
    parser.add_argument('--only', nargs='+', metavar='STAGE', help='run these stages alone')
    args = parser.parse_args()
    recipe = Recipe(args.data, args.work, args.out, args.minutes)
    for name, stage in recipe.stages():
        if not args.only or name in args.only:
            print(f'--- {name}', file=sys.stderr)
            stage()


if __name__ == '__main__':
    run(main)
