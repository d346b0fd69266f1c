"""Upload a folder of models to a hub, from which it loads as ``hf://OWNER/NAME``.

The page of the repository says what it holds, what each part learned from, and under which terms,
as far as ``bundle.json`` knows; a README.md of the folder follows it. The folder stays as it is.
Needs the extra `hub`, and a login by ``hf auth login`` or ``HF_TOKEN``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from storyteller import generate
from storyteller.cli.arguments import run
from storyteller.io import hub, model_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', type=Path, help='folder of a complete bundle')
    parser.add_argument('name', metavar='OWNER/NAME', help='repository, created if necessary')
    parser.add_argument(
        '--licence',
        '--license',
        help="licence, such as 'mit' or 'other' ('licence' in bundle.json)",
    )
    parser.add_argument('--private', action='store_true', help='create a private repository')
    parser.add_argument('--revision', metavar='BRANCH', help='branch to upload to (main)')
    parser.add_argument('--dry-run', action='store_true', help='print the page and the files only')
    args = parser.parse_args()
    hub.Address.read(f'hf://{args.name}')
    card = model_card.completed(args.models)
    files = model_card.contents(args.models, card, args.name, args.licence)
    generate.load_all(args.models, device='cpu')  # what does not fit together is kept at home
    if args.dry_run:
        print(files[model_card.PAGE].decode())
        print('files:', *files)
    else:
        print(hub.share(card, files, args.name, private=args.private, revision=args.revision))


if __name__ == '__main__':
    run(main)
