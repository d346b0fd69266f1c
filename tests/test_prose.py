from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyteller.text import detokenise, words

CASES = [
    # punctuation
    ('A dog . A cat ! A bird ?', 'A dog. A cat! A bird?'),
    ('Well , yes ; no : maybe .', 'Well, yes; no: maybe.'),
    ('What ? ! No ! ! !', 'What?! No!!!'),
    ('He paid $ 3.50 ( 20 % less ) for # 5 .', 'He paid $3.50 (20% less) for #5.'),
    ('[ Brackets ] and { braces } < eos > here', '[Brackets] and {braces} <eos> here'),
    ('someone @ example.com', 'someone@example.com'),
    ('see http : //example.com/page .', 'see http://example.com/page.'),
    ('salt & pepper , & c.', 'salt & pepper, &c.'),
    # words in two parts
    ("I ca n't , wo n't , did n't .", "I can't, won't, didn't."),
    ("It 's the dog 's bone .", "It's the dog's bone."),
    ("I 'm sure they 'd 've gone .", "I'm sure they'd've gone."),
    ("She WAS N'T 'S there", "She WASN'T'S there"),
    ("I 'm gon na go ; gim me it .", "I'm gonna go; gimme it."),
    ('I wan na .', 'I wanna.'),
    ('You can not stay .', 'You cannot stay.'),
    ("'t is late , d 'ye see", "'tis late, d'ye see"),
    # double quotes
    ("`` Why ? '' she asked . `` No . ''", '"Why?" she asked. "No."'),
    ("She said , `` Yes . ''", 'She said, "Yes."'),
    ("He said -- '' Yes '' -- and left .", 'He said--"Yes"--and left.'),
    ("I do n't -- '' she began . `` Oh", 'I don\'t--" she began. "Oh'),
    ("`` ' Mr. Hale left , ' she said . ''", '"\'Mr. Hale left,\' she said."'),
    ("`` But -- '' She stopped .", '"But--" She stopped.'),
    ("( `` Why ? '' )", '("Why?")'),
    ('" Why ? " she asked . " No . "', '"Why?" she asked. "No."'),
    ('“ Why ? ” she asked . “ No . ”', '“Why?” she asked. “No.”'),
    ('« Oui » , dit-il .', '«Oui», dit-il.'),
    ('The man said `` hello `` to her .', 'The man said "hello" to her.'),
    # quotes without their other half
    ('`` I know , he said .', '"I know, he said.'),
    ('I know . `` You', 'I know. "You'),
    ("I know , '' he said . `` Yes", 'I know," he said. "Yes'),
    ('`` I know . `` You do .', '"I know. "You do.'),
    ('`` Oh ``', '"Oh"'),
    ("''", '"'),
    ('``', '"'),
    ('"', '"'),
    # single quotes
    ("' Hello , ' he said .", "'Hello,' he said."),
    ("' Hello , ' he said , ' and goodbye . '", "'Hello,' he said, 'and goodbye.'"),
    ("`` She said ' no ' twice . ''", '"She said \'no\' twice."'),
    ("`` She said ' no . ' ''", '"She said \'no.\'"'),
    ("The boys ' hats were James ' own .", "The boys' hats were James' own."),
    ("Goin ' home wi ' an ol ' dog , nothin ' else", "Goin' home wi' an ol' dog, nothin' else"),
    ("Tell ' em ' tis late ; go over the ' phone .", "Tell 'em 'tis late; go over the 'phone."),
    ("It is ' odd ' here .", "It is 'odd' here."),
    ('‘ Why ? ’ he said .', '‘Why?’ he said.'),
    ('They aren ’ t the boys ’ hats .', 'They aren’t the boys’ hats.'),
    ('’ Twas late .', '’Twas late.'),
    # dashes and dots
    ('She ran -- but too late -- home .', 'She ran--but too late--home.'),
    ('She ran — but too late .', 'She ran—but too late.'),
    ('1914 – 1918 – four years', '1914–1918 – four years'),
    ('a - b well-dressed', 'a - b well-dressed'),
    ('Wait ... what ?', 'Wait... what?'),
    ('... and then', '...and then'),
    ("`` ... and then ... ''", '"...and then..."'),
    ('Wait .... What', 'Wait.... What'),
    ('Well … yes', 'Well… yes'),
    # nothing is changed but blanks and quotes
    ('hello . the end', 'hello. the end'),
    ('UNK 日本語 の 文', 'UNK 日本語 の 文'),
    ('Mr. Smith is in the U.S. now .', 'Mr. Smith is in the U.S. now.'),
    ('  odd \t blanks\n. ', 'odd blanks.'),
    ('', ''),
]

SENTENCES = [
    'The lighthouse keeper had three daughters, and none of them could swim.',
    '"You can\'t be serious," Nora said, and put the kettle back.',
    '"Where\'s the key?" he asked. "I left it here."',
    "She'd've told him, but he wouldn't have listened; he never did.",
    'He counted twice (the second time aloud) and still came up short.',
    'There was only one answer--and she hated it.',
    'It cost $4.75, which was 20% more than last year.',
    'Wait... is that a boat?',
    '"I--" She stopped. "Never mind."',
    'He said, "She told me \'never again\' and shut the door."',
    "The girls' coats hung by the door; the boys' boots stood under them.",
    "'Come in,' said the old man. 'It's open.'",
    "We're gonna need a bigger table, aren't we?",
    'At 5 p.m. Mr. and Mrs. Hale left for the U.S.',
    "What?! You're leaving?",
    "I cannot go, and I don't want to.",
    'Her list: eggs, flour, sugar, and a very small lemon.',
    '“It’s over,” she whispered.',
    "Lookin' back, I'd say they warned 'em.",
]


@pytest.mark.parametrize('tokens, prose', CASES)
def test_tokens_are_set_as_prose(tokens, prose):
    assert detokenise(tokens) == prose
    assert detokenise(tokens.split()) == prose


@pytest.mark.parametrize('sentence', SENTENCES)
def test_prose_survives_tokenising(sentence):
    assert detokenise(words(sentence)) == sentence


@pytest.mark.parametrize('sentence', SENTENCES)
def test_prose_may_be_cut_anywhere(sentence):
    tokens = words(sentence)
    for end in range(len(tokens)):
        prose = detokenise(tokens[:end])
        assert words(prose.strip())[: max(end - 2, 0)] == tokens[: max(end - 2, 0)]


@given(st.lists(st.sampled_from([t for case, _ in CASES for t in case.split()])))
def test_nothing_but_blanks_and_quotes_changes(tokens):
    prose = detokenise(tokens)
    plain = ''.join({'``': '"', "''": '"', '`': "'"}.get(t, t) for t in tokens)
    assert prose.replace(' ', '') == plain
    assert prose == prose.strip() and '  ' not in prose
    assert not any(f' {mark}' in prose for mark in ',;!?)')


def test_empty_tokens_are_passed_over_and_others_refused():
    assert detokenise(['a', '', 'b', '.']) == 'a b.'
    assert detokenise(t for t in ('a', '.')) == 'a.'
    with pytest.raises(TypeError, match=r'tokens\[1\].*str.*int'):
        detokenise(['a', 3])


@pytest.mark.parametrize('token', ['``', "''", '"', "'", '--', 'a', '...', "'s", '’'])
def test_a_long_passage_takes_no_quadratic_time(token):
    start = time.process_time()
    assert detokenise([token] * 200_000)
    assert time.process_time() - start < 10
