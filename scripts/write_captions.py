"""Write the default caption pool from the small grammar in ``caption_scenes.txt``.

The grammar file explains its own notation. This module reads it and supplies what a
table cannot: number agreement, verb forms, articles, and the rule that no two captions
say the same thing in the same content words.
"""

from __future__ import annotations

import argparse
import functools
import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from storyteller.formats import atomic_path

HERE = Path(__file__).resolve().parent
GRAMMAR_FILE = HERE / 'caption_scenes.txt'
PER_SCENE = 302
PER_LABEL = 24
MAX_TRIES = 4000  # consecutive rejections after which a scene counts as exhausted

_FUNCTION_WORDS = """
    a an the and or of in on at by with from to into onto over under up down off out for
    as is are am be being there while near next beside behind along through across around
    between against inside outside above below before after front it its he she his her him
    their them they that this some 's . ,
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())

# More of them make a caption clumsy.
AT_MOST = {'in': 2, 'with': 1, 'on': 1, 'at': 1, 'beside': 1, 'under': 1, 'near': 1, 'front': 1}

_IRREGULAR = """
    man:men woman:women child:children person:people goose:geese sheep:sheep
    ox:oxen buffalo:buffalo deer:deer shrimp:shrimp moose:moose knife:knives leaf:leaves
    loaf:loaves meatloaf:meatloaves wolf:wolves calf:calves mouse:mice tomato:tomatoes
    potato:potatoes scarf:scarves mango:mangoes foot:feet
"""
IRREGULAR = dict(pair.split(':') for pair in _IRREGULAR.split())
HEAD_ENDS = re.compile(
    r' (?=(?:in|on|with|of|at|from|near|under|wearing|holding|for|full|covered (?:in|with)|like) )'
)
AN = re.compile(r'(?i:[aio](?!ne\b)|e(?!u)|u(?!ni(?!n)|s|ti|k)|hour)')
COUNTS = ['two'] * 9 + ['three'] * 4 + ['four', 'several', 'several', 'some', 'a group of']


@dataclass
class Grammar:
    """What ``caption_scenes.txt`` holds.

    Parameters
    ----------
    words
        Word list name -> phrases.
    scenes
        Scene name -> (template, label or None) pairs; a template with a label is meant for
        that label's things alone.
    counts
        Scene name -> captions wanted.
    things
        Scene name -> label -> phrases that ``{thing}`` may become. The label '' holds the
        things of a scene that no image class stands for.
    apart
        Labels whose things appear in their own templates alone.
    """

    words: dict[str, list[str]] = field(default_factory=dict)
    scenes: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    things: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)

    @functools.cached_property
    def labels(self) -> dict[str, str]:
        """Label (the first name of an image class) -> the scene that shows it."""
        return {label: scene for scene, table in self.things.items() for label in table if label}


@functools.cache
def load_grammar(path: Path = GRAMMAR_FILE) -> Grammar:
    """Read a grammar file; a line that fits nowhere raises ValueError with its number."""
    grammar, phrases, scene, label = Grammar(), None, None, None
    for number, line in enumerate(path.read_text(encoding='ascii').splitlines(), 1):
        line = line.split('#')[0].rstrip()
        keyword, _, rest = line.strip().partition(' ')
        if not line:
            continue
        if keyword == 'words':
            name, _, listed = rest.partition(':')
            phrases, scene = grammar.words.setdefault(name, _alternatives(listed)), None
        elif keyword == 'scene':
            scene, _, count = rest.rstrip(')').partition(' (')
            phrases, label, grammar.counts[scene] = None, None, int(count or PER_SCENE)
            grammar.scenes[scene], grammar.things[scene] = [], {}
        elif scene is not None and keyword in ('=', '=!'):
            label, _, things = (part.strip() for part in rest.partition(':'))
            grammar.apart.update([label] if keyword == '=!' else [])
            grammar.things[scene].setdefault(label, []).extend(_alternatives(things))
        elif scene is not None and line.startswith('  '):
            own = label if keyword == '>' else None
            grammar.scenes[scene].append((rest if own is not None else line.strip(), own))
        elif phrases is not None and line.startswith('  '):
            phrases.extend(_alternatives(line))
        else:
            raise ValueError(f'{path}, line {number}: neither list, scene nor template: {line!r}')
    return grammar


def _alternatives(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.split('|') if phrase.strip()]


def plural(noun: str) -> str:
    """Plural of a noun or of the head of a noun phrase.

    >>> plural('brown dog'), plural('cup of coffee'), plural('woman in red shoes')
    ('brown dogs', 'cups of coffee', 'women in red shoes')
    """
    head, *tail = HEAD_ENDS.split(noun, maxsplit=1)
    before, _, last = head.rpartition(' ')
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith('man'):
        last = last[:-3] + 'men'
    elif re.search(r'(?:s|sh|ch|x)$', last):
        last += '' if last.endswith('fish') else 'es'
    elif re.search(r'[^aeiou]y$', last):
        last = last[:-1] + 'ies'
    else:
        last += 's'
    return ' '.join(part for part in (before, last, *tail) if part)


def third_person(verb: str) -> str:
    """'run' -> 'runs', 'carry' -> 'carries', 'be' -> 'is'."""
    if verb in ('be', 'have'):
        return {'be': 'is', 'have': 'has'}[verb]
    if re.search(r'[^aeiou]y$', verb):
        return verb[:-1] + 'ies'
    return verb + ('es' if re.search(r'(?:s|sh|ch|x|z|o)$', verb) else 's')


def participle(verb: str) -> str:
    """'run' -> 'running', 'ride' -> 'riding', 'lie' -> 'lying'."""
    if verb.endswith('ie'):
        return verb[:-2] + 'ying'
    if re.fullmatch(r'.*[^e]e', verb):
        return verb[:-1] + 'ing'
    if re.fullmatch(r'[^aeiou]*[aeiou][bdgklmnprt]', verb):  # one short syllable
        return verb + verb[-1] + 'ing'
    return verb + 'ing'


class Writer:
    """Turns templates of a grammar into captions, drawing from one random generator."""

    def __init__(self, grammar: Grammar, rng: random.Random) -> None:
        self.grammar = grammar
        self.rng = rng

    def write(self, template: str, things: list[str]) -> str:
        """One caption; ``things`` are the phrases that ``{thing}`` may become."""
        self.things, self.many, self.subject = things, None, ''
        finite = template.startswith('!')
        text = self.expand(template.lstrip('! '), False)
        moods = ['simple'] * 5 + ['progressive'] * 4 + ['participle'] * (0 if finite else 3)
        mood = self.rng.choice(moods)
        phrase = ('[' not in text and not finite) or mood == 'participle'
        text = self.conjugate(text, mood)
        text = re.sub(r'\ba (?=' + AN.pattern + ')', 'an ', ' '.join(text.split()))
        stop = '' if self.rng.random() < (0.34 if phrase else 0.04) else ' .'
        return text[0].upper() + text[1:] + stop

    def expand(self, text: str, many: bool) -> str:
        """Choose among (these/those) and fill every {slot}, from left to right."""
        while '(' in text:
            text = re.sub(r'\(([^()]*)\)', lambda m: self.alternative(m[1].split('/')), text)
        return re.sub(r'\{([^{}]*)\}', lambda m: self.slot(m[1], many), text)

    def alternative(self, choices: list[str]) -> str:
        skip = '' in choices and self.rng.random() < 0.65
        return '' if skip else self.rng.choice(choices)

    def slot(self, spec: str, many: bool) -> str:
        mark, _, name = spec.rpartition(' ')
        if name in ('his', 'its'):
            return self.possessive(name)
        if mark == 'n':
            mark = self.rng.choice(['a', 'a', 'a', 'two'])
        agrees = mark in ('~', 's')
        if agrees:
            many = many or bool(self.many)
        elif mark:
            many = mark in ('two', 'group', '+', '&')
            if self.many is None:
                self.many = many
        first = not self.subject and mark and not agrees
        literal = agrees and name not in self.grammar.words and name != 'thing'
        phrase = name if literal else self.expand(self.choose(name), many)
        if many and mark and mark != '&':
            phrase = plural(phrase)
        if first:
            self.subject = phrase
        return ' '.join(filter(None, (self.determiner(mark, many), phrase)))

    def choose(self, name: str) -> str:
        if name == 'thing':
            return self.rng.choice(self.things)
        if name not in self.grammar.words:
            raise ValueError(f'the grammar has no word list {name!r}')
        return self.rng.choice(self.grammar.words[name])

    def determiner(self, mark: str, many: bool) -> str:
        if mark == '~':
            return '' if many else 'a'
        if mark == 'two':
            return self.rng.choice(COUNTS)
        return {'a': 'a', 'the': 'the', 'group': 'a group of'}.get(mark, '')

    def possessive(self, name: str) -> str:
        if self.many:
            return 'their'
        if name == 'its':
            return 'its'
        if re.search(r'\b(?:\w*woman|girl|lady|female|waitress|mother)\b', self.subject):
            return 'her'
        if re.search(r'\b(?:\w*man|\w*boy|male|waiter|father)\b', self.subject):
            return 'his'
        return self.rng.choice(['his', 'her'])

    def conjugate(self, text: str, mood: str) -> str:
        """Replace [verbs] by forms that agree with the subject; one auxiliary serves all."""
        auxiliary = ['are' if self.many else 'is']

        def form(match: re.Match) -> str:
            verb = match[1]
            if verb == 'be':
                return '' if mood == 'participle' else 'are' if self.many else 'is'
            if mood == 'simple':
                return verb if self.many else third_person(verb)
            helper = auxiliary.pop() + ' ' if mood == 'progressive' and auxiliary else ''
            return helper + participle(verb)

        return re.sub(r'\[(\w+)\]', form, text)


def content_words(caption: str) -> list[str]:
    """The words that carry the meaning, lower-cased and roughly stemmed, in order."""
    words = (word for word in caption.lower().split() if word not in FUNCTION_WORDS)
    stems = (re.sub(r'(?<=\w\w)(?:ing|es|s|e)$', '', word) for word in words)
    return [re.sub(r'(.)\1$', r'\1', stem) for stem in stems]  # runn, jogg -> run, jog


# A caption may have these twice: 'a black dog and a brown dog', 'hand in hand'.
TWICE = frozenset(content_words('dog man woman boy girl player hand side slide team sew sail'))


def acceptable(caption: str, seen: set[frozenset[str]], avoid: set[str]) -> bool:
    """Whether a caption has 5 to 18 tokens, reads well, and says something new."""
    words = content_words(caption)
    single = [word for word in words if word not in TWICE]
    tokens = caption.lower().split()
    return (
        5 <= len(tokens) <= 18
        and all(tokens.count(word) <= most for word, most in AT_MOST.items())
        and len(set(single)) == len(single)
        and avoid.isdisjoint(tokens)
        and frozenset(words) not in seen
    )


def collect(writer: Writer, templates, table, count: int, seen: set[frozenset[str]]) -> list[str]:
    """Sample ``count`` acceptable captions, or as many as MAX_TRIES vain draws allow."""
    captions: list[str] = []
    tries = 0
    apart, avoid = writer.grammar.apart, set(writer.grammar.words.get('avoid', []))
    every = [thing for label, things in table.items() if label not in apart for thing in things]
    while len(captions) < count and tries < MAX_TRIES:
        template, label = writer.rng.choice(templates)
        things = every if label is None else table[label]
        caption = writer.write(template, things)
        tries += 1
        if acceptable(caption, seen, avoid):
            seen.add(frozenset(content_words(caption)))
            captions.append(caption)
            tries = 0
    return captions


def generate(seed: int = 0, grammar: Grammar | None = None) -> dict[str, list[str]]:
    """Captions of every scene.

    Parameters
    ----------
    seed
        Decides every choice.
    grammar
        Default: the grammar of ``caption_scenes.txt``.

    Returns
    -------
    dict
        Scene name -> captions, tokens parted by blanks; no two of all have the same
        content words.
    """
    grammar = grammar or load_grammar()
    seen: set[frozenset[str]] = set()
    pool = {}
    for scene, templates in grammar.scenes.items():
        writer = Writer(grammar, random.Random(f'{seed} {scene}'))
        pool[scene] = collect(writer, templates, grammar.things[scene], grammar.counts[scene], seen)
    return pool


def captions_for_label(words: str, count: int = PER_LABEL, seed: int = 0) -> list[str]:
    """Captions for a photo of which only the class is known.

    Parameters
    ----------
    words
        A line of names of an ImageNet class, such as 'goose' or 'tabby, tabby cat';
        the first name decides.
    count
        How many captions to try for; at least 12 come for every class that the grammar knows.
    seed
        Decides every choice.

    Returns
    -------
    list of str
        Captions, no two with the same content words.

    Raises
    ------
    ValueError
        If the grammar does not know the class.

    >>> len(captions_for_label('Egyptian cat', count=12))
    12
    """
    grammar, label = load_grammar(), words.split(',')[0].strip()
    if label not in grammar.labels:
        raise ValueError(f'{GRAMMAR_FILE.name} has no class {label!r}')
    scene = grammar.labels[label]
    table = {label: grammar.things[scene][label]}
    usable = [
        (text, own)
        for text, own in grammar.scenes[scene]
        if own == label
        or (own is None and label not in grammar.apart and re.search(r'\bthing\}', text))
    ]
    writer = Writer(grammar, random.Random(f'{seed} {label}'))
    return collect(writer, usable, table, count, set())


def write_pool(path: Path, pool: dict[str, list[str]], seed: int = 0) -> None:
    """Write all captions, one per line, in an order that the seed decides."""
    captions = [caption for scene in pool.values() for caption in scene]
    random.Random(seed).shuffle(captions)
    with atomic_path(path) as temporary:
        Path(temporary).write_bytes(('\n'.join(captions) + '\n').encode('ascii'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=HERE.parent / 'models' / 'captions.txt')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    pool = generate(args.seed)
    write_pool(args.out, pool, args.seed)
    for scene, captions in pool.items():
        print(f'{len(captions):5d}  {scene}', file=sys.stderr)
    print(f'{sum(map(len, pool.values())):5d}  captions in all', file=sys.stderr)


if __name__ == '__main__':
    main()
