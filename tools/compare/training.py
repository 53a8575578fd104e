# Copyright (c) dms_razor contributors. All rights reserved.
"""Training and evaluating a classifier, the same for every row of a table."""
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Callable, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dms_razor import Search
from tools.compare.data import Images
from tools.compare.experiment import ExperimentError, Recipe

#: Seconds between two lines of a training.
EVERY = 20.
Watch = Callable[[int, float], None]


@dataclass(frozen=True)
class Machine:
    """How networks are run.

    Attributes:
        threads (int): Of PyTorch, in one process.
        amp (bool): Whether forward passes are in bfloat16 by autocast.
        device (str): Where networks and images are, 'cpu' or 'cuda'.
    """
    threads: int = 1
    amp: bool = False
    device: str = 'cpu'

    def autocast(self):
        """The context of a forward pass."""
        if self.amp:
            return torch.autocast(
                torch.device(self.device).type, torch.bfloat16)
        return nullcontext()


@dataclass
class Clock:
    """Seconds of a part of a run.

    Attributes:
        wall, cpu (float): By the clock, and of this process's processors.
    """
    wall: float = 0.
    cpu: float = 0.

    def __enter__(self) -> 'Clock':
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()
        return self

    def __exit__(self, *error) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


class Progress:
    """A line every so many seconds, so that one sees that it lives.

    Args:
        what (str): What is done, e.g. 'dms 50% seed 0: training'.
        steps (int): How many steps it takes.
    """

    def __init__(self, what: str, steps: int) -> None:
        self.what, self.steps = what, steps
        self.start = self.last = time.perf_counter()

    def __call__(self, step: int, loss: Tensor) -> None:
        """After a step; the loss is read only when it is shown."""
        now = time.perf_counter()
        if now - self.last < EVERY and step < self.steps:
            return
        self.last = now
        print(
            f'{self.what} {step}/{self.steps}, loss {float(loss):.3f}, '
            f'{now - self.start:.0f} s',
            flush=True)


def memory_format(network: nn.Module) -> torch.memory_format:
    """Channels last, which is a quarter faster on a CPU, where it is safe.

    In the backward pass of a strided 1 x 1 convolution that reads fewer than
    eight channels, PyTorch 2.13 writes beyond its memory when the tensors are
    channels last; a network that has one stays as it is.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1):
            continue
        if max(module.stride) > 1 and module.in_channels < 8 * module.groups:
            return torch.contiguous_format
    return torch.channels_last


def make_optimizer(
        network: nn.Module, recipe: Recipe,
        steps: int) -> Tuple[torch.optim.Optimizer, Optional[object]]:
    """Optimizer and schedule of a recipe; no schedule where lr is constant."""
    if recipe.optimizer == 'sgd':
        optimizer = torch.optim.SGD(
            network.parameters(),
            recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0)
    else:
        optimizer = torch.optim.AdamW(
            network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    schedules = torch.optim.lr_scheduler
    if recipe.schedule == 'one_cycle' and steps > 1:
        return optimizer, schedules.OneCycleLR(
            optimizer, recipe.lr, total_steps=steps, pct_start=recipe.warmup)
    if recipe.schedule == 'cosine':
        return optimizer, schedules.CosineAnnealingLR(optimizer, steps)
    return optimizer, None


def train(network: nn.Module,
          images: Images,
          recipe: Recipe,
          seed: int,
          machine: Machine,
          what: str,
          steps: Optional[int] = None,
          search: Optional[Search] = None,
          watch: Optional[Watch] = None) -> int:
    """Train a network in place, and search it if there is a search.

    Args:
        network (nn.Module): It ends in training mode.
        images (Images): The data.
        recipe (Recipe): How.
        seed (int): Of the order and the augmentation of the images.
        machine (Machine): How it is run.
        what (str): What progress is called.
        steps (int, optional): Length, by default the recipe's.
        search (Search, optional): Takes its step before each of the weights.
        watch (callable, optional): Called with the number of the step and the
            task's loss before every update of the weights.

    Returns:
        int: Images that were seen.

    Raises:
        ExperimentError: If the loss is not finite any more.
    """
    steps = recipe.length(len(images.train[1])) if steps is None else steps
    optimizer, schedule = make_optimizer(network, recipe, steps)
    if search is not None:
        search.attach(optimizer)
    layout = memory_format(network)
    network.to(memory_format=layout).train()
    batches, progress = images.batches(recipe.batch,
                                       seed), Progress(what, steps)
    for step in range(steps):
        inputs, labels = next(batches)
        with machine.autocast():
            logits = network(inputs.contiguous(memory_format=layout))
            task = F.cross_entropy(
                logits.float(), labels, label_smoothing=recipe.label_smoothing)
        loss = task if search is None else search.loss(task)
        optimizer.zero_grad()
        loss.backward()
        if watch is not None:
            watch(step, task)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        progress(step + 1, task.detach())
        if (step + 1) % 50 == 0 and not torch.isfinite(task):
            raise ExperimentError(
                f'{what}: the loss is {task.item()} after {step + 1} steps: '
                'lower the learning rate of the recipe')
    return steps * recipe.batch


@torch.no_grad()
def evaluate(network: nn.Module, images: Images,
             machine: Machine) -> Tuple[float, float]:
    """Top-1 in percent and mean loss on the test set."""
    layout, was_training = memory_format(network), network.training
    network.to(memory_format=layout).eval()
    right, loss = 0, 0.
    for inputs, labels in images.test_batches():
        with machine.autocast():
            logits = network(inputs.contiguous(memory_format=layout)).float()
        right += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction='sum'))
    network.train(was_training)
    number = len(images.test[1])
    return 100 * right / number, loss / number


def new_weights(network: nn.Module, seed: int, init=None) -> nn.Module:
    """Give a network other weights, in place, by a seed.

    Args:
        network (nn.Module): The network.
        seed (int): Of the weights.
        init (callable, optional): ``init(network)``; by default every module
            resets its own.

    Raises:
        ExperimentError: A module has weights and no ``reset_parameters``.
    """
    device = next(network.parameters()).device
    # Drawn on the CPU, so that a seed gives the same weights everywhere.
    torch.manual_seed(seed)
    _reset(network.cpu(), init)
    return network.to(device)


def _reset(network: nn.Module, init) -> None:
    if init is not None:
        init(network)
        return
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
        elif own:
            raise ExperimentError(
                f'module "{name}" ({type(module).__name__}) has weights and '
                'no reset_parameters: give the experiment an init(network) '
                'that initialises the whole network')
