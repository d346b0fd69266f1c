"""The layers of the library: which package may import which, and how many files a folder holds."""

import ast
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / 'storyteller'

# From the lowest on. A module belongs to the layer of the longest name that begins its own, and
# may import from its own layer and from lower ones.
LAYERS = [
    ('io', 'errors', 'options', 'config', 'formats', 'vocabulary'),
    ('nn', 'layers', 'topk'),
    (
        *(
            'images',
            'ahead',
            'convnet',
            'embedding',
            'captions',
            'skipthoughts',
            'style',
            'writing',
        ),
        *('decoder', 'search', 'telling', 'text', 'convert'),
    ),
    ('loading', 'story', 'generate', 'teller'),
    ('batch', 'gallery'),
]
BESIDE = [('training',), ('evaluation',)]  # above the facade; the batch knows nothing of them
TOP = [('cli', '__main__')]
ORDER = [*LAYERS[:3], BESIDE[0], LAYERS[3], BESIDE[1], LAYERS[4], *TOP]

SURFACE = {
    'generate': 'load_all story stories load_image build_convnet compute_features Story StoryError',
    'config': 'paths',
    'images': 'load_image',
    'convnet': 'build_convnet compute_features',
    'skipthoughts': 'load_model encode Encoder word_features preprocess nn nn_words',
    'embedding': 'load_model encode_sentences encode_images',
    'captions': 'nearest',
    'decoder': 'load_model run_sampler gen_sample',
    'search': 'beam_search',
    'style': 'shift mean_vector',
    'text': 'preprocess detokenise Vocabulary',
    'layers': 'unit_rows',
    'formats': 'read_model write_model ModelFileError MissingFileError MismatchError',
    'gallery': 'write_gallery',
    'telling': 'SearchOptions Telling tell',
    'options': 'SearchOptions Telling SearchSettings StoryOptions',
    'errors': 'EmptyStoryError ImageError MismatchError MissingFileError ModelFileError',
    'teller': 'Storyteller',
}


def name_of(path: Path) -> str:
    """The name of a module below `storyteller`; that of the package itself is empty."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {name_of(path): path for path in ROOT.rglob('*.py')}


def imports(name: str, *, late: bool = True) -> set[str]:
    """The modules of the library that a module imports, unless for the types alone.

    With `late`, also those that it imports inside a function.
    """
    path = MODULES[name]
    package = name.split('.') if path.stem == '__init__' else name.split('.')[:-1]
    package = [part for part in package if part]
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not late:
            return
        if isinstance(node, ast.ImportFrom):
            if node.level:
                above = package[: len(package) - node.level + 1]
                module = '.'.join([*above, *filter(None, [node.module])])
            elif (node.module or '').partition('.')[0] == 'storyteller':
                module = (node.module or '').partition('.')[2]
            else:
                return
            for alias in node.names:
                inner = f'{module}.{alias.name}'.strip('.')
                found.add(inner if inner in MODULES else module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding='utf-8')))
    return found - {name, ''}


def layer(name: str) -> int:
    """The layer of a module, counted from the lowest."""
    for number, heads in enumerate(ORDER):
        if name.partition('.')[0] in heads:
            return number
    raise AssertionError(f'{name}: which layer? Name it in {Path(__file__).name}')


@pytest.mark.parametrize('name', sorted(MODULES.keys() - {''}))
def test_no_module_imports_from_a_higher_layer(name):
    higher = {other for other in imports(name) if layer(other) > layer(name)}
    assert not higher, f'{name} imports {sorted(higher)}'


def test_no_circles():
    graph = {name: imports(name) for name in MODULES if name}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_data_and_operators_of_training_know_no_model():
    for name in MODULES:
        if name.startswith(('training.data.', 'training.ops.')):
            models = {'decoder', 'embedding', 'skipthoughts', 'image_layer', 'loop'}
            assert not imports(name) & {f'training.{model}' for model in models}, name


def test_batch_knows_nothing_of_training():
    for name in MODULES:
        if name.partition('.')[0] in LAYERS[4]:
            heads = {other.partition('.')[0] for other in imports(name)}
            assert not heads & {'training', 'evaluation'}, name


@pytest.mark.parametrize('folder, most', [('.', 26), ('training', 24), ('evaluation', 24)])
def test_a_folder_is_seen_at_a_glance(folder, most):
    assert len(list((ROOT / folder).glob('*.py'))) <= most


@pytest.mark.parametrize('module', sorted(SURFACE))
def test_names_of_notebooks_are_where_they_were(module):
    found = importlib.import_module(f'storyteller.{module}')
    assert [name for name in SURFACE[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize('module', ['options', 'generate', 'telling'])
def test_the_older_name_of_search_options_is_where_it_was(module):
    found = importlib.import_module(f'storyteller.{module}')
    assert found.Telling is found.SearchOptions


def test_keys_of_2015():
    from storyteller import config

    awaited = 'skmodels sktables decmodel dictionary vsemodel vgg captions negbias posbias'
    assert set(awaited.split()) <= set(config.paths)
