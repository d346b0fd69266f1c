"""Measure a bundle: how well images and captions find each other, what its thoughts are good for,
how its captions fit, how its decoder tells passages again, and how its stories read.

Figures go to stdout as JSON, a line each. --help tells what DATA holds. Needs the extra `eval`.

What the figures of `stories` mean stands in storyteller.evaluation: `stories` (content, style,
fluency, variety, copying) and `flaws` (in which share of the stories a reader stumbles: a content
word twice in a clause, a run of three words twice, a name, no end, a word to leave out). The flaws
of held-out paragraphs come first, to compare with; `--style NAME FILES` adds a style to the judge.

    evaluate.py stories --data DATA --panel N --readers R --seed S --out FOLDER [--against MODELS]

measures nothing, but writes a blind panel instead: for each of R readers a sheet to read
(panel-1.md) and a form to fill in (panel-1.csv; without numbers for one reader), of N stories told
with the default settings, each under its photo's nearest caption; N/2 real passages of held-out
novels (romance-13, more-26), about as long, each under the caption that fits it best; and N/2
stories by the models in another folder. panel_key.json says which is which. Of the forms that come
back

    evaluate.py panel FOLDER FORM...

makes a table: for each source the mean marks over the readers and of each, and how far readers of
the same text are apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from storyteller import config, embedding, formats, generate, skipthoughts, writing
from storyteller.cli.arguments import add_models, add_search, run, search_from
from storyteller.evaluation import ablation, panel, passages, pool, ranking, sentence_sets
from storyteller.evaluation.held_out import LAYOUT, OURS, REAL, HeldOut, look_at
from storyteller.evaluation.linear_ranking import Described, linear_ranking
from storyteller.evaluation.panel_texts import panel_texts
from storyteller.evaluation.stories import common_words
from storyteller.options import StoryOptions
from storyteller.training.data.captioned import CaptionedPhotos
from storyteller.training.data.flickr8k import read_fc7
from storyteller.training.data.prose import read_words

ENCODERS = ('skip-thoughts', 'words', 'tf-idf')
LEAVE_OUT = Path(__file__).parent / 'words_to_leave_out.txt'
LEARNED = 'scene_passages', 'scene_songs', 'scene_preferences', 'photo_preferences'
SCENES = [Path(__file__).with_name(f'{what}.txt') for what in LEARNED]


def say(**figures: Any) -> None:
    """A line of JSON; numbers in four digits."""

    def short(value):
        if isinstance(value, dict):
            return {key: short(each) for key, each in value.items()}
        return float(f'{value:.4g}') if isinstance(value, float) else value

    print(json.dumps(short(figures)), flush=True)


# --- ranking -------------------------------------------------------------------------------------


def rank(args: argparse.Namespace) -> None:
    """Images and captions in the joint space, both ways."""
    vse = embedding.load_model(embedding_file(args.models))
    photos = captioned(args)
    images = embedding.encode_images(vse, photos.features)
    texts = embedding.encode_sentences(vse, [' '.join(caption) for caption in photos.captions])
    counts = np.bincount(photos.photos, minlength=len(images))
    for search in (ranking.i2t, ranking.t2i):
        found = ranking.in_folds(search, images, texts, args.folds, captions_per_image=counts)
        say(search=search.__name__, **found._asdict())


def embedding_file(models: str | list[str] | None) -> str:
    """The embedding of a bundle, or the file itself."""
    if isinstance(models, str) and Path(models).is_file():
        return models
    return config.resolve(models)['vsemodel']


def captioned(args: argparse.Namespace) -> CaptionedPhotos:
    """Photos as features, and their captions, in one of three layouts."""
    if args.dataset:
        return CaptionedPhotos.from_2015(args.dataset, args.split)
    if not (args.captions and args.photos and (args.features or args.photo_folder)):
        raise ValueError(
            'expected --dataset, or --captions and --photos with --features or --photo-folder'
        )
    names = formats.read_lines(args.photos)
    if args.features:
        rows = read_fc7 if args.features.suffix == '.npz' else formats.read_array
        return CaptionedPhotos.from_files(args.captions, names, rows(args.features))
    net = generate.build_convnet(config.resolve(args.models)['vgg'])
    looked_at = look_at(args.photo_folder, names, net['side'])
    inputs = np.concatenate([pixels for _, pixels in looked_at])
    return CaptionedPhotos.from_files(args.captions, names, generate.compute_features(net, inputs))


# --- sentences -----------------------------------------------------------------------------------


def judge_sentences(args: argparse.Namespace) -> None:
    """The tasks of the skip-thoughts paper, by the bundle's encoder and by simpler ones."""
    from storyteller.evaluation.encoders import MeanWords, TfIdf  # needs the extra `eval`

    files = config.resolve(args.models)
    model = skipthoughts.load_model(files['skmodels'], files['sktables'])
    for task in args.task or sentence_sets.TASKS:
        try:
            data = sentence_sets.read_task(args.data, task)
        except formats.MissingFileError as error:
            if args.task:
                raise
            tqdm.write(f'passed over: {error}')
            continue
        for name in args.encoder or ENCODERS:
            if name == 'skip-thoughts':
                encoder = skipthoughts.Encoder(model)
            elif name == 'words':
                encoder = MeanWords(model['utable'], model['btable'])
            else:
                encoder = TfIdf(sentence_sets.training_texts(data))
            for extra, figures in figures_of(task, encoder, data, args):
                say(task=task, encoder=name, **extra, **figures)


def figures_of(task: str, encoder: Any, data: Any, args: argparse.Namespace):
    """What is added to the vectors, and the figures, for each way to do a task."""
    from storyteller.evaluation import sentences

    if task == 'SICK':
        yield {}, sentences.relatedness(encoder, data)
    elif task == 'TREC':
        yield {}, sentences.question_type(encoder, data)
    elif task == 'MSRP':
        for statistics in (False, True):
            yield {'statistics': statistics}, sentences.paraphrase(encoder, data, statistics)
    else:
        for ngrams in (False, True) if args.ngrams else (False,):
            found = sentences.polarity(encoder, data, ngrams, folds=args.folds, jobs=args.jobs)
            yield {'ngrams': ngrams}, found


def rank_thoughts(args: argparse.Namespace) -> None:
    """Image-sentence ranking with a linear map of given features and of thoughts."""
    files = config.resolve(args.models)
    model = skipthoughts.load_model(files['skmodels'], files['sktables'])
    parts = []
    for names, features in zip(args.photos, args.features, strict=True):
        rows = read_fc7 if features.suffix == '.npz' else formats.read_array
        photos = CaptionedPhotos.from_files(
            args.captions, formats.read_lines(names), rows(features)
        )
        texts = [' '.join(caption) for caption in photos.captions]
        thoughts = skipthoughts.encode(model, texts, verbose=True)
        parts.append(Described(photos.features, thoughts, photos.photos))
    for way, found in linear_ranking(*parts, epochs=args.epochs).items():
        say(search=way, **found._asdict())


# --- what a bundle does with photos and books ----------------------------------------------------


def judge_captions(args: argparse.Namespace) -> None:
    """Recalls on the development photos, and how the pool serves them."""
    held = HeldOut(args.data, generate.load_all(args.models))
    z, texts = held.z, [caption for photo in held.captions for caption in photo]
    vectors = embedding.encode_sentences(z['vse'], texts)
    for name, features in held.features.items():
        images = embedding.encode_images(z['vse'], features)
        for search in (ranking.i2t, ranking.t2i):
            say(features=name, search=search.__name__, **search(images, vectors)._asdict())
        top = held.nearest(name, slice(None), 1)[:, 0]
        fit = pool.word_fit(top, z['cap'], held.captions)
        say(features=name, **pool.repetition(top), words_in_common=fit)
    say(unknown_words=pool.unknown_words(z['cap'], z['stv']['utable'], z['vse']['worddict']))
    rows = np.random.default_rng(0).permutation(len(held.names))[: args.photos]
    top = held.nearest(OURS, rows, 1)[:, 0]
    shown = [z['cap'][i] for i in top]
    for row, caption in zip(rows, shown, strict=True):
        say(photo=held.names[row], caption=caption)
    if args.sheet:
        page = pool.contact_sheet([held.looked_at[row][0] for row in rows], shown)
        with formats.atomic_path(args.sheet) as temporary:
            page.save(temporary, args.sheet.suffix.lstrip('.') or 'png')


def judge_decoder(args: argparse.Namespace) -> None:
    """Perplexity of held-out passages, and how much of them comes back, by length."""
    held = HeldOut(args.data, generate.load_all(args.models))
    z = held.z
    common = common_words(text for book in held.books for text in book)
    for shortest, longest in ((8, 20), (20, 50), (50, 140)):
        texts = held.paragraphs(shortest, longest, args.passages)
        vectors = skipthoughts.encode(z['stv'], texts, verbose=False, tokenised=True)
        figures = passages.regenerated(z['dec'], texts, vectors, common)
        figures['perplexity'] = passages.perplexity(z['dec'], texts, vectors)
        figures['perplexity_of_the_mean'] = passages.perplexity(
            z['dec'], texts, np.repeat(vectors.mean(0, keepdims=True), len(texts), axis=0)
        )
        say(words=f'{shortest}-{longest}', passages=len(texts), **figures)


# --- stories -------------------------------------------------------------------------------------


def judge_stories(args: argparse.Namespace) -> None:
    """The measures of stories told with and without the style shift, in each style and strength."""
    if args.panel is not None:
        return write_panel(args)
    leave_out = read_words(args.leave_out) if args.leave_out else frozenset()
    held = HeldOut(args.data, generate.load_all(args.models))
    z, rows = held.z, np.arange(len(held.names))[: args.photos]
    styles, learned = dict(args.style or ()), args.learned_from or ()
    judges = ablation.Judges(held, args.work, leave_out, styles, learned)
    chosen = search_from(args, z['search'])
    options = StoryOptions(**vars(chosen))
    novels = judges.flaws_of_novels()
    say(accuracy_of_the_style_judge=judges.style.accuracy, flaws_of_novels=novels)
    found: dict[str, dict[str, Any]] = {}
    for features in args.features or held.features:
        nearest = held.nearest(features, rows, chosen.k)
        captions = [[z['cap'][i] for i in found] for found in nearest]
        thoughts = generate.mean_thoughts(z, nearest)
        for name, shifted in ablation.shifts(z, thoughts).items():
            if args.setting and name not in args.setting:
                continue
            b = z['styles'].get(name.removeprefix('style '), z['bpos'])
            texts = writing.texts_of(z, shifted, options, b, captions)
            told = [str(each) if isinstance(each, ValueError) else each[0][0] for each in texts]
            figures = judges.figures(told, rows)
            say(features=features, setting=name, **figures)
            if features == OURS:
                found[name] = figures
            if args.told:
                with args.told.open('a', encoding='utf-8') as file:
                    for row, story in zip(rows, told, strict=True):
                        line = {'features': features, 'setting': name, 'photo': held.names[row]}
                        file.write(json.dumps(line | {'story': story}) + '\n')
    print(ablation.table(found))
    if args.picture:
        ablation.draw(found, args.picture)


def write_panel(args: argparse.Namespace) -> None:
    """Sheets of stories and real passages for readers who do not know which is which."""
    if not args.out:
        raise ValueError('--panel: expected a folder to write to, --out FOLDER')
    panel.check_free(args.out)
    z = generate.load_all(args.models)
    other = generate.load_all(args.against) if args.against else None
    texts = panel_texts(z, args.data, args.work, args.panel, args.readers, other, args.seed)
    for path in panel.write_panel(args.out, panel.deal(texts, args.readers, args.seed)):
        say(sheet=str(path), form=str(path.with_suffix('.csv')))


def judge_panel(args: argparse.Namespace) -> None:
    """What readers of a blind panel thought, by the forms that they filled in."""
    key = panel.read_key(args.folder)
    readers = [panel.read_marks(path, key) for path in args.forms]
    found = panel.scores(key, readers)
    for source, figures in found.items():
        means = {name: float(np.mean(each)) for name, each in figures.items()}
        say(source=source, **means, readers=figures)
    if apart := panel.agreement(readers):
        say(mean_difference_between_readers=apart)
    print(panel.table(found))


def main() -> None:
    lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__.split('.')[0], epilog=LAYOUT, formatter_class=lines
    )
    jobs = parser.add_subparsers(required=True, metavar='WHAT')

    def job(name, function, models=True):
        command = jobs.add_parser(name, help=function.__doc__, description=function.__doc__)
        if models:
            add_models(command)
        command.set_defaults(job=function)
        return command

    command = job('ranking', rank)
    command.add_argument('--dataset', help='PREFIX_SPLIT_caps.txt, PREFIX_SPLIT_ims.npy')
    command.add_argument('--split', default='test', help='(%(default)s)')
    command.add_argument('--captions', type=Path, help='lines photo<TAB>caption')
    command.add_argument('--photos', type=Path, help='names, one a line')
    command.add_argument('--features', type=Path, help='.npy, or .npz of fc7: a row for each name')
    command.add_argument('--photo-folder', type=Path, help='instead: the photos')
    command.add_argument('--folds', type=int, default=1, help='5 for the 5,000 of COCO')

    data, several = 'a folder; evaluate.py --help says what of', {'action': 'extend', 'nargs': '+'}
    command = job('sentences', judge_sentences)
    command.add_argument('--data', type=Path, required=True, help=data)
    command.add_argument('--task', **several, choices=sentence_sets.TASKS, help='default: all')
    command.add_argument('--encoder', **several, choices=ENCODERS, help='default: all')
    command.add_argument('--ngrams', action='store_true', help='two classes: also with n-grams')
    command.add_argument('--folds', type=int, default=10, help='two classes (%(default)s)')
    command.add_argument('--jobs', type=int, default=1, help='processes (%(default)s)')

    command = job('linear-ranking', rank_thoughts)
    command.add_argument('--captions', type=Path, required=True, help='lines photo<TAB>caption')
    for name in ('photos', 'features'):
        command.add_argument(
            f'--{name}', type=Path, nargs=3, required=True, metavar=('TRAIN', 'DEV', 'TEST')
        )
    command.add_argument('--epochs', type=int, default=15, help='(%(default)s)')

    command = job('captions', judge_captions)
    command.add_argument('--data', type=Path, required=True, help=data)
    command.add_argument('--photos', type=int, default=30, help='to list (%(default)s)')
    command.add_argument('--sheet', type=Path, help='also draw them with their captions')

    command = job('decoder', judge_decoder)
    command.add_argument('--data', type=Path, required=True, help=data)
    command.add_argument('--passages', type=int, default=1000, help='of each length (%(default)s)')

    command = job('stories', judge_stories)
    command.add_argument('--data', type=Path, required=True, help=data)
    command.add_argument('--work', type=Path, default=Path('runs/evaluate'), help='(%(default)s)')
    command.add_argument('--photos', type=int, default=200, help='(%(default)s)')
    add_search(command, strength=False)
    command.add_argument('--features', **several, choices=(OURS, REAL), help='default: both')
    command.add_argument('--setting', **several, help="such as 'x - c + b'; default: all")
    command.add_argument('--told', type=Path, help='also add the stories to this file, JSON lines')
    command.add_argument('--picture', type=Path, help='also draw the figures, .png')
    listed = LEAVE_OUT if LEAVE_OUT.exists() else None
    help = 'words that no story should say, one a line (%(default)s)'
    command.add_argument('--leave-out', type=Path, default=listed, help=help)
    help = 'texts beside the novels that stories may have copied from (%(default)s)'
    scenes = [path for path in SCENES if path.exists()]
    command.add_argument('--learned-from', type=Path, nargs='*', default=scenes, help=help)
    help = 'one more for the style judge: of novels whose file names begin so, or by these authors'
    command.add_argument('--style', nargs=2, action='append', metavar=('NAME', 'FILES'), help=help)
    command.add_argument(
        '--panel', type=int, metavar='N', help='write a panel of N stories instead'
    )
    command.add_argument('--out', type=Path, metavar='FOLDER', help='of the panel')
    command.add_argument('--readers', type=int, default=1, help='sheets of it (%(default)s)')
    command.add_argument('--seed', type=int, default=0, help='of the panel (%(default)s)')
    command.add_argument('--against', metavar='MODELS', help='also told by these')

    command = job('panel', judge_panel, models=False)
    command.add_argument('folder', type=Path, metavar='FOLDER', help='of the panel')
    command.add_argument('forms', type=Path, nargs='+', metavar='FORM', help='filled in, .csv')
    args = parser.parse_args()
    args.job(args)


if __name__ == '__main__':
    run(main)
