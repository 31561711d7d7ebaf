"""Train a torch network by Adam: the same network for the same seed on one machine, and no global state changed.

torch is an optional dependency of two seconds to import, so this module is imported only by a model that is fitted.

References:
    D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod, sqrt
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.baselines.epochs import Learner, fit_by_epochs
from pipeline.baselines.model import Labels, Model, Pixels, Scores, Task
from pipeline.pixels import normalise
from pipeline.recipe import BaselinePart

# Where cuBLAS finds how much memory its products may take: without it they are not the same twice.
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
# Images asked about at a time: what they are inside a network is many times their size.
_BLOCK = 1024


def fit_network(spec: BaselinePart, task: Task, layers: Callable[[int], nn.Module]) -> Model:
    """Train a network on a GPU, if torch sees one, else on the CPU.

    Args:
        spec: `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: what to learn from.
        layers: makes the network of so many outputs: (batch, channels, height, width) float32, -0.5 to 0.5, to
            (batch, outputs) logits.

    Raises:
        BaselineError: there is `patience`, but no valid example.
    """
    with _repeatable():
        return fit_by_epochs(spec, task, lambda outputs: _learner(spec, task, layers, outputs))


def _learner(spec: BaselinePart, task: Task, layers: Callable[[int], nn.Module], outputs: int) -> Learner:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device("meta"):  # on no device: torch's own start would take from its global generator
        network = layers(outputs)
    network = network.to_empty(device="cpu")
    _start(network, torch.Generator().manual_seed(spec.seed))
    network.to(device)
    adam = torch.optim.Adam(network.parameters(), lr=cast("float", spec.learning_rate))
    height, width, channels = task.shape

    def forward(pixels: Pixels) -> Tensor:
        inputs = torch.from_numpy(normalise(pixels)).to(device).view(-1, height, width, channels)
        return cast("Tensor", network(inputs.permute(0, 3, 1, 2).contiguous()))

    def step(pixels: Pixels, labels: Labels) -> float:
        adam.zero_grad()
        loss = nn.functional.cross_entropy(forward(pixels), torch.from_numpy(labels).to(device))
        loss.backward()
        adam.step()
        return float(loss.detach())

    def scores(pixels: Pixels) -> Scores:
        with _repeatable(), torch.inference_mode():
            parts = [torch.softmax(forward(pixels[at : at + _BLOCK]), 1) for at in range(0, len(pixels), _BLOCK)]
            return cast("Scores", torch.cat(parts).cpu().numpy())

    def remember() -> Callable[[], None]:
        held = {name: tensor.clone() for name, tensor in network.state_dict().items()}

        def back() -> None:
            network.load_state_dict(held)

        return back

    return Learner(step, scores, remember)


def _start(network: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases evenly between -1 and 1 over the root of a unit's inputs, as torch does by itself."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            most = 1 / sqrt(prod(layer.weight.shape[1:]))
            for tensor in (layer.weight, layer.bias):
                nn.init.uniform_(tensor, -most, most, generator)


@contextmanager
def _repeatable() -> Iterator[None]:
    """Let torch take only ways that give the same again, and leave its settings as they were.

    One thread: with another number of threads, sums come out otherwise. A second one would make LeNet 1.7 times as
    quick where its core is free, and either network 10 times as slow where another process wants it too.
    """
    asked = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    threads, held = torch.get_num_threads(), os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")
    # Only to warn, and not a word of it: on a GPU the slope of pooling is added up in any order, which matters only
    # where windows overlap. Ours do not.
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(asked, warn_only=only_warns)
        if held is None:
            del os.environ[_CUBLAS]
