"""Benchmark stages of the image networks, with ONNX Runtime for comparison.

The bundle's network is loaded alone, on the CPU, and its file may be of any kind that the library
reads. ONNX Runtime, if it is installed, runs the plain network of the same weights, in which it
folds what can be folded, on as many threads.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_machine as machine
import numpy as np
import torch
import vgg_forms
from benchmark_plain_networks import load_network
from benchmark_stages import MB, Bench, Run, Stage, timed

from storyteller import convnet, images
from storyteller.nn import efficientnet

RUNTIME = 'ONNX Runtime'
NEEDED = 'onnx', 'onnxruntime'
OPSET = 17  # of the ONNX graph
SEE = """
import json, sys
import numpy as np
from storyteller import convnet, images
folder, path, count = sys.argv[1:]
sys.path.append(folder)
from benchmark_machine import peak_memory, seconds_of
side = convnet.side_of(path) or images.CROP
photos = np.full((int(count), 3, side, side), 10, np.float32)
def work():
    convnet.compute_features(convnet.build_convnet(path, device='cpu'), photos)
with peak_memory() as peak:
    seconds = seconds_of(work)
print(json.dumps({'seconds': seconds, 'peak': peak}))
"""

BUILD = """
import json, sys
from storyteller import convnet
folder, path = sys.argv[1:]
sys.path.append(folder)
from benchmark_machine import peak_memory, seconds_of
with peak_memory() as peak:
    seconds = seconds_of(lambda: convnet.build_convnet(path, device='cpu'))
print(json.dumps({'seconds': seconds, 'peak': peak}))
"""


def preprocessing(bench: Bench) -> Stage:
    """A photo read as the network wants it."""
    return Stage(timed(lambda: images.load_image(bench.photos[0], side=bench.side)))


def network(count: int) -> Callable[[Bench], Stage]:
    """So many photos through the network of a bundle that is loaded."""

    def make(bench: Bench) -> Stage:
        return _seeing(bench, bench.z['net'], count)

    return make


def bundled(count: int) -> Callable[[Bench], Stage]:
    """So many photos through a network that is loaded alone, with ONNX Runtime to compare."""

    def make(bench: Bench) -> Stage:
        net = convnet.build_convnet(bench.paths['vgg'], device='cpu')
        stage = _seeing(bench, net, count)
        note, plain = f'{RUNTIME}: not installed', None
        if installed():
            note, plain = '', beside(net, load_network(bench.paths['vgg']), bench.inputs(count))
        return Stage(stage.run, plain, note=note, items=count, peer=RUNTIME)

    return make


def _seeing(bench: Bench, net: convnet.Net, count: int) -> Stage:
    photos, products = bench.inputs(count), machine.convnet_products(net['options'], count)
    return Stage(
        timed(lambda: convnet.compute_features(net, photos), *products),
        timed(lambda: bench.plain.features(photos)),
        items=count,
    )


def memory(count: int) -> Callable[[Bench], Stage]:
    """The network built, and shown so many photos, in a fresh process that has imported already."""

    def make(bench: Bench) -> Stage:
        return Stage(lambda: _elsewhere(SEE, bench.paths['vgg'], str(count)), elsewhere=True)

    return make


def reading(form: str) -> Callable[[Bench], Stage]:
    """A random VGG-19 built from a file of this form, in a process that has imported already."""

    def make(bench: Bench) -> Stage:
        path = bench.paths['vgg']
        is_vgg = convnet.side_of(path) is None
        architecture = convnet.read_params(path)[0] if is_vgg else convnet.VGG19
        rng, params = np.random.default_rng(0), {}
        for name, shape in architecture.shapes().items():
            params[name] = rng.standard_normal(shape, np.float32) * np.float32(0.01)
        folder = Path(tempfile.gettempdir(), 'storyteller_vgg_forms')
        shutil.rmtree(folder, ignore_errors=True)  # one at a time is large enough
        folder.mkdir()
        vgg_forms.FORMS[form](folder / form, params)
        size = (folder / form).stat().st_size / MB
        return Stage(
            lambda: _elsewhere(BUILD, str(folder / form)), elsewhere=True, note=f'{size:.0f} MB'
        )

    return make


def _elsewhere(code: str, *arguments: str) -> Run:
    """A run in a fresh process, which tells its seconds and its peak of memory."""
    found = machine.python(code, str(Path(__file__).parent), *arguments)
    told = bool(found['peak'])  # by the system
    return Run(found['seconds'], facts={'peak_mb': found['peak'][0] / MB} if told else {})


# --- ONNX Runtime --------------------------------------------------------------------------------


def installed() -> bool:
    """Whether the packages are there that the comparison needs."""
    return all(importlib.util.find_spec(name) for name in NEEDED)


def beside(net: convnet.Net, plain: torch.nn.Module, photos: np.ndarray) -> Callable[[], Run]:
    """Runs of the plain network (N, 3, S, S) to (N, F) by ONNX Runtime, which note how near it is.

    The difference is the largest of an activation, relative to the largest activation; of
    EfficientNet-Lite2 the pooled ones count, which are the first part of its features.
    """
    session = start_session(plain, photos[:1])
    columns = None if net['side'] is None else efficientnet.POOLED
    ours = convnet.compute_features(net, photos)[:, :columns]

    def run() -> Run:
        found: list[np.ndarray] = []
        seconds = machine.seconds_of(lambda: found.extend(session.run(None, {'photos': photos})))
        difference = float(np.abs(found[0][:, :columns] - ours).max() / np.abs(ours).max())
        version = importlib.import_module('onnxruntime').__version__
        note = f'{RUNTIME} {version}: largest relative difference {difference:.1e}'
        return Run(seconds, note=note, facts={'difference': difference})

    return run


def start_session(network: torch.nn.Module, photo: np.ndarray) -> Any:
    """ONNX Runtime with a network of photos, any number at once, on as many threads as PyTorch."""
    runtime, graph = importlib.import_module('onnxruntime'), io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')  # the exporter that needs no more packages is the old one
        torch.onnx.export(
            network, (torch.from_numpy(photo),), graph, input_names=['photos'],
            output_names=['features'], dynamic_axes={'photos': {0: 'N'}, 'features': {0: 'N'}},
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    return runtime.InferenceSession(graph.getvalue(), options, providers=['CPUExecutionProvider'])
