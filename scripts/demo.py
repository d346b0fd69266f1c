"""A web page that tells the stories of uploaded photos. Needs the extra `demo`.

It listens on this machine alone unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from storyteller import images
from storyteller.cli.arguments import add_max_pixels, add_models, add_threads, run, use_threads
from storyteller.io import picture_files
from storyteller.io.extras import needed
from storyteller.options import MAX_PIXELS, SearchSettings, StoryOptions, check_count

MOST_MEGABYTES = 100  # of a photo; those of telephones with 200 megapixels take up to 60
WAITING = 16  # people in the queue; more are asked to come back
QUICK = SearchSettings(bw=20)  # where the models suggest nothing
PREVIEW = 1024  # pixels of the longer side
EXAMPLES = sorted((Path(__file__).resolve().parent.parent / 'images').glob('ex*.jpg'))
NAMES = {'JPEG2000': 'JPEG 2000', 'HEIF': 'HEIC'}  # of formats, where they are called otherwise
TOLD_OF = 'JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP', 'JPEG2000', 'AVIF', 'HEIF'

# Name, label, least, most, step.
SEARCH = (
    ('k', 'Captions to average', 1, 200, 1), ('bw', 'Beam width', 1, 100, 1),
    ('min_words', 'Minimum words', 0, 100, 1), ('no_repeat', 'No repeated n-gram of size', 0, 8, 1),
    ('no_echo', 'No repeated word within', 0, 20, 1),
    ('length_penalty', 'Length penalty', 0, 2, 0.1),
    ('candidates', 'Candidates to rerank', 1, 32, 1),
)  # fmt: skip
CHANCE = (
    ('temperature', 'Temperature', 0.1, 2, 0.05),
    ('top_p', 'Nucleus (top p)', 0.1, 1, 0.05),
)

# A page of another machine may not use the clipboard, but what is selected can be copied.
COPY = """(story) => {
    if (navigator.clipboard) { navigator.clipboard.writeText(story); return }
    const area = document.createElement('textarea')
    area.value = story
    document.body.append(area)
    area.select()
    document.execCommand('copy')
    area.remove()
}"""
SAVE = """(captions, story) => {
    const link = document.createElement('a')
    const text = story + '\\n\\n' + captions + '\\n'
    link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain;charset=utf-8'}))
    link.download = 'story.txt'
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 60000)
}"""


def usual_of(z: dict[str, Any]) -> SearchSettings:
    """What stories are told with before anybody has chosen."""
    usual = z.get('search', SearchSettings())
    return QUICK if usual == SearchSettings() else usual


def defaults(z: dict[str, Any]) -> dict[str, Any]:
    """Every choice on the page by its name, in the order in which `teller` takes them."""
    styles, usual = list(z['styles']), usual_of(z)
    searched = {
        name: min(getattr(usual if name in ('k', 'bw') else usual.telling, name), most)
        for name, _, _, most, _ in SEARCH + CHANCE
    }
    return {
        'style': 'romance' if 'romance' in styles else styles[0],
        'second': '',
        'share': 0.5,
        'strength': usual.strength,
        'lyric': False,
        **searched,
        'required': ' '.join(usual.telling.required),
        'banned': ' '.join(usual.telling.banned),
        'draw': False,
        'seed': 0,
    }


def options_of(
    z: dict[str, Any], chosen: dict[str, Any], max_pixels: int = MAX_PIXELS
) -> StoryOptions:
    """What the choices ask for; what cannot have an effect is left out."""
    numbers = {
        name: (int if step == 1 else float)(chosen[name]) for name, *_, step in SEARCH + CHANCE
    }
    k, bw = numbers.pop('k'), numbers.pop('bw')
    words = {name: tuple((chosen[name] or '').split()) for name in ('required', 'banned')}
    telling = dataclasses.replace(usual_of(z).telling, **numbers, **words)
    draw, share = bool(chosen['draw']), float(chosen['share'])
    style = chosen['style']
    if chosen['second'] and chosen['second'] != style:
        style = {style: 1 - share, chosen['second']: share}
    return StoryOptions(
        style=style,
        strength=float(chosen['strength']),
        lyric=bool(chosen['lyric']),
        k=k,
        bw=bw,
        telling=telling.fitting(draw, bw),
        maxlen=usual_of(z).maxlen,
        seed=int(chosen['seed'] or 0) if draw else None,
        max_pixels=max_pixels,
    )


def teller(z: dict[str, Any], max_pixels: int = MAX_PIXELS) -> Callable[..., tuple[str, str]]:
    """The function behind the button: a photo and the choices to captions and a story."""
    from storyteller import generate  # after `use_threads`: it loads torch

    names = list(defaults(z))

    def tell(path, *choices):
        if not path:
            raise _sorry('Please choose a photo first.', 'No photo')
        try:
            options = options_of(z, dict(zip(names, choices, strict=True)), max_pixels)
            (told,) = generate.stories(z, [path], **vars(options))
        except (ValueError, OSError) as error:
            raise _sorry(f'This photo cannot be told: {_reason(error)}') from None
        captions = '\n'.join(f'- {caption}' for caption, _ in told.captions[:5])
        return captions, '\n'.join(told.lines) if options.lyric else told.prose

    return tell


def looker(max_pixels: int = MAX_PIXELS) -> Callable[[str | None], Image.Image | None]:
    """The function behind the upload: a photo to its picture, upright and not too large."""

    def look(path):
        if not path:
            return None
        try:
            picture = Image.fromarray(images.read_rgb(path, max_pixels=max_pixels))
        except (ValueError, OSError) as error:
            raise _sorry(f'This photo cannot be read: {_reason(error)}') from None
        picture.thumbnail((PREVIEW, PREVIEW))
        return picture

    return look


def _reason(error: Exception) -> str:
    """Without the path, which is nobody's business."""
    return getattr(error, 'reason', None) or str(error)


def _sorry(message: str, title: str = 'Sorry') -> Exception:
    import gradio

    return gradio.Error(message, title=title, print_exception=False)


def takes() -> str:
    """The formats that are read here, in words."""
    known = picture_files.known_formats()
    return ', '.join(NAMES.get(name, name) for name in TOLD_OF if name in known)


def page(z: dict[str, Any], max_pixels: int = MAX_PIXELS) -> Any:
    """The page, not yet served."""
    import gradio

    with gradio.Blocks(title='storyteller') as blocks:
        gradio.Markdown(
            '# storyteller\nDrop a photo, and networks that have read many novels tell a little '
            'story about it. Nobody who appears in it exists.'
        )
        with gradio.Row():
            with gradio.Column():
                # A file, not a picture: it is read by us, so that what is wrong is said by us.
                photo = gradio.File(label=f'Photo ({takes()})', type='filepath')
                preview = gradio.Image(
                    show_label=False, interactive=False, format='jpeg', elem_id='preview'
                )
                samples = gradio.Gallery(
                    [str(path) for path in EXAMPLES],
                    label='Or one of these',
                    columns=4,
                    height=200,
                    allow_preview=False,
                    interactive=False,
                    elem_id='examples',
                    visible=bool(EXAMPLES),
                )
                chosen = _controls(z)
                button = gradio.Button('Tell', variant='primary')
            with gradio.Column():
                gradio.Markdown('## Nearest captions')
                captions = gradio.Markdown(elem_id='captions')
                gradio.Markdown('## Story')
                story = gradio.Textbox(
                    show_label=False, lines=12, interactive=False, elem_id='story'
                )
                with gradio.Row():
                    gradio.Button('Copy').click(None, story, js=COPY)
                    gradio.Button('Save').click(None, [captions, story], js=SAVE)
        photo.change(looker(max_pixels), photo, preview)

        def pick(event):
            return str(EXAMPLES[event.index])

        pick.__annotations__ = {'event': gradio.SelectData}  # by which an event is asked for
        samples.select(pick, None, photo)
        button.click(
            teller(z, max_pixels),
            [photo, *chosen],
            [captions, story],
            concurrency_limit=1,
            api_name='tell',
        )
    return blocks.queue(max_size=WAITING)


def _controls(z: dict[str, Any]) -> list[Any]:
    """A control for each of the `defaults`, in their order."""
    import gradio

    styles, value = list(z['styles']), defaults(z)

    def sliders(rows):
        return [
            gradio.Slider(least, most, value[name], step=step, label=label)
            for name, label, least, most, step in rows
        ]

    style = gradio.Dropdown(styles, value=value['style'], label='Style')
    strength = gradio.Slider(0, 1.5, value['strength'], step=0.05, label='Strength of the style')
    with gradio.Accordion('More', open=False):
        second = gradio.Dropdown([('nothing', ''), *styles], value='', label='Mixed with')
        share = gradio.Slider(0, 1, value['share'], step=0.05, label='Share of the second style')
        lyric = gradio.Checkbox(value['lyric'], label='A line for each part between commas')
        search = sliders(SEARCH)
        required = gradio.Textbox(value['required'], label='Words that it must have')
        banned = gradio.Textbox(value['banned'], label='Words that it must not have')
        draw = gradio.Checkbox(value['draw'], label='Draw the words instead of searching the best')
        seed = gradio.Number(value['seed'], precision=0, label='Number of the draw', minimum=0)
        chance = sliders(CHANCE)
    return [style, second, share, strength, lyric, *search, *chance, required, banned, draw, seed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; 0.0.0.0: all interfaces (%(default)s)',
    )
    parser.add_argument('--port', type=int, default=7860, help='(%(default)s)')
    parser.add_argument(
        '--max-megabytes',
        type=int,
        default=MOST_MEGABYTES,
        help='maximum size of an upload (%(default)s)',
    )
    add_max_pixels(parser)
    add_threads(parser)
    args = parser.parse_args()
    check_count('max-megabytes', args.max_megabytes)
    check_count('max-pixels', args.max_pixels)
    if not 0 <= args.port < 2**16:  # before the models are loaded too
        raise ValueError(f'port: expected 0 to 65535, found {args.port}')
    use_threads(args.threads)
    needed('gradio')  # before the models are loaded
    picture_files.register_plugins()
    from storyteller import generate

    z = generate.load_all(args.models)
    page(z, args.max_pixels).launch(
        server_name=args.host,
        server_port=args.port,
        max_file_size=f'{args.max_megabytes}mb',
        allowed_paths=[str(path) for path in EXAMPLES],
        share=False,
    )


if __name__ == '__main__':
    run(main)
