from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import time
from unittest import mock

import nltk
import pytest
from conftest import REFERENCE
from hypothesis import given
from hypothesis import strategies as st

from storyteller import config, formats, text
from storyteller.formats import MissingFileError, ModelFileError
from storyteller.text import (
    Vocabulary,
    build_dictionary,
    detokenise,
    english,
    preprocess,
    sentences,
    words,
)

EM_DASH = 20  # the fixture sentence with an em dash, which NLTK has split off since 3.5
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


def reference(name):
    return json.loads((REFERENCE / name).read_text(encoding='utf-8'))


def nltk_data_installed():
    try:
        sentences('', punkt='nltk')
    except LookupError:
        return False
    return True


# ---- the fixtures of 2015


@pytest.mark.parametrize('punkt', ['shipped', 'nltk', 'auto'])
def test_preprocess_gives_the_strings_of_2015(punkt):
    if punkt == 'nltk' and not nltk_data_installed():
        pytest.skip("NLTK's punkt_tab is not installed")
    given_texts = reference('skipthoughts/sentences.json')
    expected = reference('skipthoughts/tokenised.json')
    result = preprocess(given_texts, punkt=punkt)
    assert len(result) == len(expected) == 42
    different = [i for i, (a, b) in enumerate(zip(result, expected, strict=True)) if a != b]
    assert different in ([], [EM_DASH])


def test_the_one_difference_is_the_blank_around_an_em_dash():
    given_text = reference('skipthoughts/sentences.json')[EM_DASH]
    expected = reference('skipthoughts/tokenised.json')[EM_DASH]
    assert '—' in given_text
    (result,) = preprocess([given_text], punkt='shipped')
    assert result.replace(' — ', '—') == expected


@pytest.mark.parametrize('punkt', ['shipped', 'auto'])
def test_preprocess_gives_the_captions_of_2015(punkt):
    expected = reference('skipthoughts/captions_tokenised.json')
    assert len(expected) == 60
    assert preprocess(reference('skipthoughts/captions.json'), punkt=punkt) == expected


def test_words_is_nltks_word_tokenizer():
    for sentence in reference('skipthoughts/sentences.json') + AWKWARD:
        assert words(sentence) == nltk.word_tokenize(sentence, preserve_line=True)


AWKWARD = [
    '"Wait--" He stopped. (He always did.)',
    "'Tis the boys' hat, y'all; they'd've gone, wouldn't they?",
    "I wanna, gotta, gonna, lemme, gimme; cannot, d'ye, more'n.",
    'At 3:30 p.m., for $1,000.50 (50%) – or 1914–18…',
    'a ... b .. c.... d…',
    '«Oui» „Nein“ ‘yes’ “no”',
    "``already'' split",
    'trailing blanks.   ',
]


# ---- preprocess


def test_every_sentence_has_a_blank_before_it():
    assert preprocess(['One. Two. Three']) == [' One . Two . Three']


@pytest.mark.parametrize('blank', ['', ' ', '\n\t \u00a0', '\u2028'])
def test_blank_text_becomes_the_empty_string(blank):
    assert preprocess([blank, 'A dog.']) == ['', ' A dog .']


def test_one_string_is_a_list_of_one_text_and_generators_are_read():
    assert preprocess('A dog. A cat.') == [' A dog . A cat .']
    assert preprocess(t for t in ('a', 'b')) == [' a', ' b']
    assert preprocess([]) == []


@pytest.mark.parametrize('bad, kind', [(b'bytes', 'bytes'), (None, 'NoneType'), (3, 'int')])
def test_what_is_no_string_is_refused_by_index(bad, kind):
    with pytest.raises(TypeError, match=rf'X\[2\].*str.*{kind}'):
        preprocess(['a', 'b', bad])
    with pytest.raises(TypeError, match=kind):
        words(bad)
    with pytest.raises(TypeError, match=kind):
        sentences(bad)


# ---- sentences with our parameters

WHOLE = [
    "Mr. Baker met Mrs. White at St. Mary's.",
    'Dr. No met Prof. X at 5 p.m. on Jan. 3rd.',
    '"Mr. Darcy," she said, "is here."',
    "'Mr. Darcy is here,' she said.",
    '“Mrs. Hope is here,” she said.',
    'We met Capt. Cook, Lt. Gen. Grant and Sgt. Pepper.',
    'See fig. 3, vol. 2, no. 17, pp. 4 ff.',
    'It costs approx. 5 lbs. per sq. yd. in the U.K. today.',
    'He works for Acme Inc. in Washington, D.C. these days.',
    'She has a Ph.D. in fruit, e.g. apples, pears, etc., i.e. in food.',
    'J. R. R. Tolkien and C. S. Lewis were friends.',
    'On Dec. 24 at 6 a.m. we left.',
    'I wonder... no, never mind.',
    'Pi is 3.14159, and version 2.0.1 is out.',
    'Visit www.example.com or mail me@example.org today.',
    'No punctuation here',
]
PARTED = [
    ['I said no.', 'He left.'],
    ['"No."', 'She shook her head.'],
    ['Is it you?', 'Yes!', 'Come in.'],
    ['He came at 5 p.m.', 'She came later.'],
    ['They live in the U.S.', 'However, they are French.'],
    ['We ate bread, cheese, etc.', 'Then we slept.'],
    ['This is plan B.', 'The other one failed.'],
    ['It was 1905.', 'She was ten.'],
    ['He sat.', 'The sun set.', 'In May.', 'We sat in the sun.', 'It sat on a fig.', 'Go on.'],
    ['(He left.)', 'She stayed.'],
    ['"Go away."', '"Why?"', 'He left.'],
    ['“Go away.”', 'He left.'],
    ['One.', 'Two.', 'Three.'],
    ['It was you and I.', 'We knew.'],
]


@pytest.mark.parametrize('sentence', WHOLE)
def test_abbreviations_do_not_end_a_sentence(sentence):
    assert sentences(sentence, punkt='shipped') == [sentence]


@pytest.mark.parametrize('parts', PARTED)
def test_sentences_are_parted(parts):
    assert sentences(' '.join(parts), punkt='shipped') == parts
    assert sentences('\n\n'.join(parts) + '\n', punkt='shipped') == parts


def test_listed_abbreviations_are_lower_case_and_without_their_stop():
    listed, pairs = english.listed_abbreviations()
    assert {'mr', 'mrs', 'dr', 'e.g', 'i.e', 'u.s', 'p.m', 'a.m', 'inc', 'jan'} <= listed
    assert ('no', '##number##') in pairs and 'no' not in listed
    assert all(a == a.lower().strip('.') and len(a) > 1 for a in listed)


def test_the_shipped_parameters_are_small_plain_data():
    path = english.DATA / 'punkt_english.json'
    table = json.loads(path.read_text(encoding='utf-8'))
    assert len(path.read_bytes()) < 400_000
    assert set(table) == {'abbreviations', 'sentence_starters', 'orthographic_context'}
    assert len(table['orthographic_context']) > 5000


def test_auto_takes_nltks_parameters_where_they_are_installed(tmp_path, monkeypatch):
    folder = tmp_path / 'tokenizers' / 'punkt_tab' / 'english'
    folder.mkdir(parents=True)
    (folder / 'abbrev_types.txt').write_text('zork\n')
    (folder / 'collocations.tab').write_text('')
    (folder / 'sent_starters.txt').write_text('')
    (folder / 'ortho_context.tab').write_text('')
    monkeypatch.setattr(nltk.data, 'path', [str(tmp_path)])
    english.sentence_tokenizer.cache_clear()
    try:
        for punkt in ('auto', 'nltk'):
            assert len(sentences('Mr. Smith saw a zork. Then he ran.', punkt=punkt)) == 2
            assert sentences('A zork. Then he ran.', punkt=punkt) == ['A zork. Then he ran.']
        assert len(sentences('A zork. Then he ran.', punkt='shipped')) == 2
    finally:
        english.sentence_tokenizer.cache_clear()


def test_without_nltks_data_auto_is_ours_and_nltk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, 'path', [str(tmp_path)])
    english.sentence_tokenizer.cache_clear()
    try:
        assert sentences("'Mr. Baker left. I saw it.'") == ["'Mr. Baker left.", "I saw it.'"]
        with pytest.raises(LookupError):
            sentences('A dog.', punkt='nltk')
    finally:
        english.sentence_tokenizer.cache_clear()


def test_an_unknown_choice_of_parameters_is_refused():
    with pytest.raises(ValueError, match="'punkt3'"):
        sentences('A dog.', punkt='punkt3')


# ---- awkward input


@given(ANY_TEXT)
def test_any_text_is_tokenised_without_loss(any_text):
    parts = sentences(any_text, punkt='shipped')
    assert ''.join(''.join(parts).split()) == ''.join(any_text.split())
    assert all(word.split() == [word] for part in parts for word in words(part))
    (result,) = preprocess([any_text], punkt='shipped')
    assert result == '' if not parts else result.startswith(' ')


PIECES = ['a', '.', 'a.', '"', "'", "n't", ' ', '\x00', '\ud800', '(', '--', 'a?b!', '. .', 'Mr. ']
PIECES += ['.)', '\n', '—', ':', '\u200b']
SENTENCES = [pytest.param(p, marks=pytest.mark.slow) for p in ('. ', 'A. ', '? ')]


@pytest.mark.parametrize('piece', PIECES + SENTENCES)
def test_a_line_of_200_000_characters_takes_no_quadratic_time(piece):
    seconds = []
    for length in (25_000, 200_000):
        start = time.process_time()
        preprocess([piece * (length // len(piece))])
        seconds.append(time.process_time() - start)
    # Linear: 8 times; quadratic: 64 times, and minutes. There is no counting of a regex's steps.
    assert seconds[1] < 32 * seconds[0] + 10


@pytest.mark.slow
def test_a_word_of_a_million_characters_is_one_word():
    assert preprocess(['a' * 10**6]) == [' ' + 'a' * 10**6]


def test_a_long_book_is_not_timed_out(monkeypatch):
    # NLTK 3.10 ends every match after five seconds: too few for a long book on a busy machine.
    redos = pytest.importorskip('nltk.redos')
    monkeypatch.setattr(redos, 'DEFAULT_TIMEOUT', 0.1)
    book = 'Mr. Smith said no. "Why?" she asked, and left... He did not know. ' * 10_000
    assert len(sentences(book, punkt='shipped')) == 30_000


# ---- vocabularies


@pytest.mark.parametrize('corpus', ['small', 'captions'])
def test_build_dictionary_ranks_words_as_in_2015(corpus):
    expected = reference('training/vocab.json')[corpus]
    worddict, wordcount = build_dictionary(expected['corpus'])
    assert [list(item) for item in wordcount.items()] == expected['wordcount']
    ours, theirs = list(worddict.items()), [tuple(item) for item in expected['worddict']]
    if corpus == 'small':
        assert ours == theirs
    # Up to ties: the same indices, and at each a word of the same count.
    assert [i for _, i in ours] == [i for _, i in theirs] == list(range(2, len(ours) + 2))
    assert [wordcount[w] for w, _ in ours] == [wordcount[w] for w, _ in theirs]
    assert {w for w, _ in ours} == {w for w, _ in theirs}


def test_equally_frequent_words_stand_in_reverse_order_of_first_sight():
    worddict, _ = build_dictionary(f'w{i}' for i in range(50))
    assert list(worddict) == [f'w{i}' for i in reversed(range(50))]


def test_build_dictionary_names_the_text_that_is_no_string():
    with pytest.raises(TypeError, match=r'texts\[1\].*bytes'):
        build_dictionary(['a', b'b'])


def from_texts(texts, **limits):
    """The vocabulary of tokenised texts."""
    return Vocabulary.from_counts(build_dictionary(texts)[1], **limits)


def test_a_vocabulary_has_eos_unk_and_words_by_falling_count():
    vocabulary = from_texts(['b a c a', 'a b d'])
    assert list(vocabulary) == ['<eos>', 'UNK', 'a', 'b', 'd', 'c']
    assert len(vocabulary) == 6
    assert vocabulary['a'] == 2 and vocabulary.word(2) == 'a'
    assert 'b' in vocabulary and 'z' not in vocabulary
    with pytest.raises(KeyError):
        vocabulary['z']


def test_a_vocabulary_ranks_as_build_dictionary_does():
    corpus = reference('training/vocab.json')['captions']['corpus']
    worddict, wordcount = build_dictionary(corpus)
    vocabulary = from_texts(corpus)
    assert list(vocabulary)[2:] == list(worddict)
    assert vocabulary == Vocabulary.from_dictionary(worddict) == Vocabulary.from_counts(wordcount)


def test_n_words_counts_the_two_special_entries_and_min_count_drops_rare_words():
    corpus = ['a a a b b c']
    assert list(from_texts(corpus, n_words=4)) == ['<eos>', 'UNK', 'a', 'b']
    assert list(from_texts(corpus, min_count=3)) == ['<eos>', 'UNK', 'a']
    with pytest.raises(ValueError, match=r'n_words.*1'):
        from_texts(corpus, n_words=1)


def test_the_words_eos_and_unk_in_a_text_are_the_special_ones():
    vocabulary = from_texts(['UNK UNK a <eos>'])
    assert list(vocabulary) == ['<eos>', 'UNK', 'a']


def test_encode_and_decode():
    vocabulary = from_texts(['a a a b b c'])
    assert vocabulary.encode(['a', 'c', 'z', 'UNK', '<eos>']) == [2, 4, 1, 1, 0]
    assert vocabulary.encode(['a', 'b', 'c'], n_words=3) == [2, 1, 1]
    assert vocabulary.decode([2, 4, 1, 0]) == ['a', 'c', 'UNK', '<eos>']
    for index in (-1, 5):
        with pytest.raises(IndexError, match=f'{index}.*4'):
            vocabulary.decode([index])


def test_encode_reads_a_string_by_white_space():
    assert from_texts(['dog']).encode('dog  cat\tdog') == [2, 1, 2]


@pytest.mark.parametrize('name', ['romance_dictionary.pkl', 'romance_dictionary_plain.pkl'])
def test_dictionaries_of_2015_are_read(name):
    pairs = reference('decoder/romance_dictionary.json')
    vocabulary = Vocabulary.load(REFERENCE / 'decoder' / name)
    assert len(vocabulary) == len(pairs) + 2 == 90
    assert all(vocabulary[word] == index for word, index in pairs)
    assert vocabulary.word(0) == '<eos>' and vocabulary.word(1) == 'UNK'


def test_save_and_load_keep_every_entry(tmp_path):
    vocabulary = from_texts(['café “ — 日本 naïve a\u0301 a a'])
    path = tmp_path / 'words.txt'
    vocabulary.save(path)
    assert path.read_bytes().split(b'\n')[:3] == [b'<eos>', b'UNK', b'a']
    assert Vocabulary.load(path) == vocabulary
    assert [p.name for p in tmp_path.iterdir()] == ['words.txt']


@pytest.mark.parametrize('word', ['', 'a\nb', 'a\r', '\ud800', 'UNK'])
def test_what_cannot_be_a_line_is_not_written(tmp_path, word):
    path = tmp_path / 'words.txt'
    with pytest.raises(ValueError, match=r'words\.txt.*' + re.escape(repr(word))):
        Vocabulary(('<eos>', 'UNK', word)).save(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'dictionary, message',
    [
        ({'a': 0, 'b': 1}, "index 0.*'<eos>'.*'a'"),
        ({'a': 2, 'b': 4}, '0 to 3, found 0 to 4'),
        ({'a': 2, 'b': 2}, "index 2.*'a'.*'b'"),
        ({'a': -1}, 'found -1 to 1'),
    ],
)
def test_a_dictionary_with_other_indices_is_refused(tmp_path, dictionary, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_dictionary(dictionary)
    path = tmp_path / 'other.pkl'
    path.write_bytes(pickle.dumps(dictionary))
    with pytest.raises(ModelFileError, match=r'other\.pkl.*' + message):
        Vocabulary.load(path)


def test_a_dictionary_may_name_eos_and_unk_itself():
    dictionary = {'<eos>': 0, 'UNK': 1, 'a': 2}
    assert list(Vocabulary.from_dictionary(dictionary)) == ['<eos>', 'UNK', 'a']


def test_files_that_are_no_vocabulary_are_named(tmp_path):
    path = tmp_path / 'words.txt'
    with pytest.raises(MissingFileError, match=r'words\.txt'):
        Vocabulary.load(path)
    path.write_text('a\nb\n')
    with pytest.raises(ModelFileError, match=r'words\.txt'):
        Vocabulary.load(path)


def test_a_vocabulary_must_start_with_its_special_entries_and_cannot_change():
    with pytest.raises(ValueError, match='<eos>'):
        Vocabulary(('a', 'b'))
    vocabulary = Vocabulary(['<eos>', 'UNK'])
    with pytest.raises(AttributeError):
        vocabulary.entries = ()
    assert hash(vocabulary) == hash(Vocabulary(('<eos>', 'UNK')))


def test_words_of_2015_with_a_hard_blank_stay_whole(tmp_path):
    # Python 2 split byte strings at ASCII white space only, so its dictionaries hold such words.
    vocabulary = Vocabulary.from_dictionary({'a\u00a0b': 2, '\u2028': 3, 'c\x85': 4})
    vocabulary.save(tmp_path / 'words.txt')
    assert Vocabulary.load(tmp_path / 'words.txt') == vocabulary


def test_importing_reads_nothing():
    code = 'import sys, storyteller.text; print("nltk" in sys.modules)'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout == 'False\n' and run.stderr == ''


# ---- texts that are tokens already


def by_nltk(caption):
    """What the tokenisers make of a text, without the short cut."""
    with mock.patch.object(text, '_are_tokens', lambda _: False):
        return text._tokenised(caption, 'auto')


def test_captions_need_no_tokeniser():
    captions = formats.read_lines(config.paths['captions'])[::10]
    plain = [caption for caption in captions if text._TOKENS.fullmatch(caption)]
    assert len(plain) > 0.9 * len(captions)
    assert [by_nltk(caption) for caption in plain] == [f' {caption}' for caption in plain]


PIECES = [
    'A', 'dog', 'T-shirt', ',', 'cannot', 'Gonna', 'lemme', 'wanna', 'gotta', 'gimme', 'Dr', 'no',
    'U', 'etc', 'more-n', 'tis', 'twas', "it's", '.', '--', '-', '1', 'e.g.', 'a,b', 'x.', '',
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8), st.booleans())
def test_the_short_cut_changes_nothing(pieces, stop):
    caption = ' '.join([*pieces, '.'] if stop else pieces)
    assert words(caption) == english.word_tokenizer().tokenize(caption)
    assert preprocess(caption) == [by_nltk(caption)]


@given(st.from_regex(text._TOKENS, fullmatch=True))
def test_tokens_stay_as_they_are(caption):
    if text._are_tokens(caption):
        assert by_nltk(caption) == f' {caption}'
        assert english.word_tokenizer().tokenize(caption) == caption.split(' ')


# ---- prose


@pytest.mark.parametrize(
    ('tokens', 'prose'),
    [
        ('A dog . A cat ! A bird ?', 'A dog. A cat! A bird?'),
        ('Well , yes ; no : maybe .', 'Well, yes; no: maybe.'),
        ("I ca n't , wo n't , did n't .", "I can't, won't, didn't."),
        ("It 's the dog 's bone , I 'm sure .", "It's the dog's bone, I'm sure."),
        ("I 'm gon na go .", "I'm gonna go."),
        ("`` Why ? '' she asked . `` No . ''", '"Why?" she asked. "No."'),
        ("Yes -- but she did n't -- not yet .", "Yes--but she didn't--not yet."),
        ("the boys ' hats", "the boys' hats"),
        ("' Hello , ' he said .", "'Hello,' he said."),
        ('( a dog ) and more ...', '(a dog) and more...'),
        ("and then , '' he said . `` What", 'and then," he said. "What'),
        ('', ''),
    ],
)
def test_tokens_are_set_as_a_person_would(tokens, prose):
    assert detokenise(tokens) == prose
    assert detokenise(tokens.split()) == prose


@pytest.mark.parametrize(
    'sentence',
    [
        'She looked at the sea, and the sea was grey.',
        '"I can\'t go," he said; "it\'s late."',
        "Mrs. Hale's dog hadn't eaten since five o'clock.",
        'What then? Nothing--or nearly nothing (as he knew).',
    ],
)
def test_setting_words_undoes_splitting_them(sentence):
    assert detokenise(words(sentence)) == sentence
