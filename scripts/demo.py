"""A web page for telling photos: drop one, choose how, read. Needs the extra `demo`.

It listens on this machine alone unless --host says otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from storyteller import generate
from storyteller.command_line import add_models, run
from storyteller.extras import needed
from storyteller.options import SearchSettings

MOST_BYTES = '20mb'  # of a photo
WAITING = 16  # people in the queue; more are asked to come back
LIMITS = {'k': 200, 'bw': 100}
QUICK = SearchSettings(bw=20)  # where the models suggest nothing


def teller(z: dict[str, Any]) -> Callable[..., tuple[str, str]]:
    """The function behind the button: a photo and its options to captions and a story."""
    import gradio

    def tell(path, style, strength, k, bw, lyric, seed):
        if not path:
            raise gradio.Error(
                'Please choose a photo first.', title='No photo', print_exception=False
            )
        options = {'style': style, 'strength': float(strength), 'k': int(k), 'bw': int(bw)}
        drawn = None if seed in (None, '') else int(seed)
        try:
            (told,) = generate.stories(z, [path], lyric=bool(lyric), seed=drawn, **options)
        except (ValueError, OSError) as error:
            reason = getattr(error, 'reason', None) or str(error)
            raise gradio.Error(
                f'This photo cannot be told: {reason}', title='Sorry', print_exception=False
            ) from None
        captions = '\n'.join(f'- {caption}' for caption, _ in told.captions[:5])
        return captions, '\n'.join(told.lines) if lyric else told.prose

    return tell


def page(z: dict[str, Any]) -> Any:
    """The page, not yet served."""
    import gradio

    styles = list(z['styles'])
    first = 'romance' if 'romance' in styles else styles[0]
    usual = z.get('search', SearchSettings())
    usual = QUICK if usual == SearchSettings() else usual
    with gradio.Blocks(title='storyteller') as blocks:
        gradio.Markdown(
            '# storyteller\nDrop a photo, and networks that have read many novels tell a little '
            'story about it. Nobody who appears in it exists.'
        )
        with gradio.Row():
            with gradio.Column():
                photo = gradio.Image(
                    type='filepath', label='Photo', sources=['upload', 'clipboard']
                )
                style = gradio.Dropdown(styles, value=first, label='Style')
                strength = gradio.Slider(
                    0, 1.5, usual.strength, step=0.05, label='Strength of the style'
                )
                with gradio.Accordion('More', open=False):
                    k, bw = (
                        gradio.Slider(1, most, min(getattr(usual, name), most), step=1, label=label)
                        for (name, most), label in zip(
                            LIMITS.items(), ('Captions to average', 'Beam width'), strict=True
                        )
                    )
                    lyric = gradio.Checkbox(False, label='A line for each part between commas')
                    seed = gradio.Number(
                        None, precision=0, label='Seed: sample instead of searching', minimum=0
                    )
                button = gradio.Button('Tell', variant='primary')
            with gradio.Column():
                story = gradio.Textbox(label='Story', lines=12, elem_id='story')
                captions = gradio.Markdown(label='Nearest captions', elem_id='captions')
        inputs = [photo, style, strength, k, bw, lyric, seed]
        button.click(teller(z), inputs, [captions, story], concurrency_limit=1, api_name='tell')
    return blocks.queue(max_size=WAITING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0: everybody (%(default)s)')
    parser.add_argument('--port', type=int, default=7860, help='(%(default)s)')
    args = parser.parse_args()
    needed('gradio')  # before the models are loaded
    z = generate.load_all(args.models)
    page(z).launch(
        server_name=args.host, server_port=args.port, max_file_size=MOST_BYTES, share=False
    )


if __name__ == '__main__':
    run(main)
