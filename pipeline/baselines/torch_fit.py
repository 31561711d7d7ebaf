"""Train a torch network with Adam: reproducible on one machine, without changing torch's global state.

torch is an optional dependency and takes two seconds to import. Only the models that use it import this module, and
only when they are fitted.

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

from pipeline.baselines.epochs import Learner, Step, as_model, fit_by_epochs
from pipeline.baselines.model import Labels, Model, Pixels, Scores, StoredModel, Task, Weights
from pipeline.pixels import normalise
from pipeline.recipe.baselines import EpochsPart

# cuBLAS reads its workspace size here. Without a fixed size its results are not reproducible.
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
# Images to predict at a time: inside a network they take many times their size.
_BLOCK_ROWS = 1024


def fit_network(part: EpochsPart, task: Task, make_network: Callable[[int], nn.Module]) -> Model:
    """Train a network on a GPU if torch has one, else on the CPU.

    Args:
        part: `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: the training data.
        make_network: makes a network with the given number of outputs: (batch, channels, height, width) float32, -0.5
            to 0.5, to (batch, outputs) logits.

    Raises:
        BaselineError: there is `patience`, but no valid example; or training diverged.
    """
    with _reproducible():
        return fit_by_epochs(
            part, task, lambda outputs: _make_learner(part, task.shape, _new_network(part, make_network, outputs))
        )


def load_network(stored: StoredModel, make_network: Callable[[int], nn.Module]) -> Model:
    """Make a fitted network again, on a GPU if torch has one, else on the CPU.

    Args:
        stored: its weights are the state of the network, by torch's names, and `known`.
        make_network: as for `fit_network`.
    """
    part = cast("EpochsPart", stored.part)
    known = stored.weights["known"]
    with _reproducible():
        network = _new_network(part, make_network, len(known))
        state = {name: torch.from_numpy(values) for name, values in stored.weights.items() if name != "known"}
        network.load_state_dict(state)
        return as_model(_make_learner(part, stored.shape, network), known, stored.classes)


def _new_network(part: EpochsPart, make_network: Callable[[int], nn.Module], outputs: int) -> nn.Module:
    # On the meta device, because torch's own initialisation would draw from its global generator.
    with torch.device("meta"):
        network = make_network(outputs)
    network = network.to_empty(device="cpu")
    _initialise(network, torch.Generator().manual_seed(part.seed))
    return network.to("cuda" if torch.cuda.is_available() else "cpu")


def _make_learner(part: EpochsPart, shape: tuple[int, int, int], network: nn.Module) -> Learner:
    device = next(network.parameters()).device
    adam = torch.optim.Adam(network.parameters(), lr=part.learning_rate)
    height, width, channels = shape

    def forward(pixels: Pixels) -> Tensor:
        inputs = torch.from_numpy(normalise(pixels)).to(device).view(-1, height, width, channels)
        return cast("Tensor", network(inputs.permute(0, 3, 1, 2).contiguous()))

    def step(pixels: Pixels, labels: Labels) -> Step:
        adam.zero_grad()
        logits, wanted = forward(pixels), torch.from_numpy(labels).to(device)
        loss = nn.functional.cross_entropy(logits, wanted)
        loss.backward()
        adam.step()
        return Step(float(loss.detach()), int((logits.detach().argmax(1) == wanted).sum()))

    def scores(pixels: Pixels) -> Scores:
        with _reproducible(), torch.inference_mode():
            starts = range(0, len(pixels), _BLOCK_ROWS)
            parts = [torch.softmax(forward(pixels[at : at + _BLOCK_ROWS]), 1) for at in starts]
            return cast("Scores", torch.cat(parts).cpu().numpy())

    def checkpoint() -> Callable[[], None]:
        saved = {name: tensor.clone() for name, tensor in network.state_dict().items()}

        def restore() -> None:
            network.load_state_dict(saved)

        return restore

    def weights() -> Weights:
        return {name: tensor.cpu().numpy().copy() for name, tensor in network.state_dict().items()}

    return Learner(step, scores, checkpoint, weights)


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases uniformly from +-1 / sqrt(inputs of a unit), as torch does by default."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / sqrt(prod(layer.weight.shape[1:]))
            for tensor in (layer.weight, layer.bias):
                nn.init.uniform_(tensor, -bound, bound, generator)


@contextmanager
def _reproducible() -> Iterator[None]:
    """Make torch use deterministic algorithms and one thread; restore its settings at the end.

    One thread, because sums differ between numbers of threads. A second thread would make LeNet 1.7 times as fast on a
    free core, and either network 10 times as slow on a busy one.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    threads, variable = torch.get_num_threads(), os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")
    # warn_only, and the warning is hidden: on a GPU the gradient of pooling is summed in any order. That matters only
    # where pooling windows overlap, and ours do not.
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        if variable is None:
            del os.environ[_CUBLAS]
