"""Write small files in the forms of 2015, with Python 2.7 and NumPy 1.16.

    python2.7 write_forms.py

All numbers are made up. Row i of every table is i * 3 / 8, (i * 3 + 1) / 8, (i * 3 + 2) / 8.
"""

# ruff: noqa: UP031

import os
import pickle
from collections import OrderedDict

import numpy

cPickle = __import__('cPickle')  # of Python 2 alone

os.chdir(os.path.dirname(os.path.abspath(__file__)))
long = type(1 << 70)  # Python 2 has two kinds of integers
NUMBERS = numpy.arange(36, dtype='float32').reshape(12, 3) / 8


def table(kinds=('<f4',)):
    """Rows (3,) and (1, 3) by turns, as the words of an encoder and others stood in 2015."""
    rows = numpy.empty(len(NUMBERS), dtype=object)
    for i, row in enumerate(NUMBERS):
        row = row.astype(kinds[i % len(kinds)])
        rows[i] = row if i % 3 == 0 else row.reshape(1, 3)
    return rows


def write_table(name, rows, module, protocol, shape='(12,)'):
    header = "{'descr': '|O', 'fortran_order': False, 'shape': %s, }" % shape
    header += ' ' * (-(len(header) + 11) % 16) + '\n'
    with open(name, 'wb') as f:
        f.write('\x93NUMPY\x01\x00' + chr(len(header)) + '\x00' + header)
        module.dump(rows, f, protocol)


for module in (cPickle, pickle):
    for protocol in (0, 1, 2):
        name = 'table_%s_%d.npy' % (module.__name__, protocol)
        write_table(name, table(), module, protocol)
write_table('table_long.npy', table(), cPickle, 2, '(12L,)')
write_table('table_mixed.npy', table(['<f4', '<f8', '<f2', '>f4']), cPickle, 2)
write_table('table_mixed_pickle.npy', table(['<f8', '>f4', '<f4', '<f2']), pickle, 2)
numpy.save('table_saved.npy', table())
again = table()
again[7] = again[6]  # one array twice
numpy.save('table_twice.npy', again)

rows = numpy.empty(12, dtype=object)
rows[:] = [row for row in NUMBERS]
one = numpy.empty(3, dtype=object)
one[:] = [0.5, numpy.float32(1.5), 2]
numpy.savez(
    'objects.npz', Wemb=rows, encoder_b=one, history_errs=[[1.0, 2.0], [3.0]], options={'a': 1}
)
cafe = b'caf\xc3\xa9'
options = {
    'n_words': numpy.int64(12), 'dim': 3, 'dim_word': numpy.int32(3), 'lrate': numpy.float32(0.5),
    'decay_c': numpy.float64(0.25), 'reload_': numpy.bool_(False),
    'encoder': b'gru'.decode('utf-8'), 'decoder': numpy.string_('gru'), 'saveto': cafe + b'.npz',
    'embeddings': None, 'maxlen_w': 2 ** 40, 'batch_size': long(16),
    'data': numpy.unicode_(cafe.decode('utf-8')), 'sizes': [long(1), numpy.int16(2), (3, True)],
    'shape': numpy.array([2, 3]),
}  # fmt: skip
for protocol in (0, 1, 2):
    with open('options_%d.pkl' % protocol, 'wb') as f:
        cPickle.dump(options, f, protocol)
with open('objects.npz.pkl', 'wb') as f:
    cPickle.dump(options, f)

words = OrderedDict()
words['<eos>'] = 0
words[b'UNK'.decode('utf-8')] = long(1)
words[cafe] = numpy.int64(2)
words[b'd\xc3\xa9j\xc3\xa0'.decode('utf-8')] = 3
counts = OrderedDict((word, 10 - i) for i, word in enumerate(words))
for protocol in (0, 2):
    with open('dictionary_%d.pkl' % protocol, 'wb') as f:
        cPickle.dump(words, f, protocol)
        cPickle.dump(counts, f, protocol)

numpy.save('style_row.npy', numpy.arange(4, dtype='float64').reshape(1, 4) / 4)
numpy.save('style_column_order.npy', numpy.asfortranarray(numpy.arange(4).reshape(1, 4) / 4.0))
