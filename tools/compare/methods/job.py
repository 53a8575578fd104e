# Copyright (c) dms_razor contributors. All rights reserved.
"""What a method of finding a network is given, and what it gives back."""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Union

import torch.nn.functional as F
from torch import Tensor, nn

from dms_razor import Search
from dms_razor.core.budget import parse_target
from dms_razor.core.registry import Registry
from dms_razor.core.resource import METRICS
from tools.compare.data import Images
from tools.compare.experiment import Budget, Experiment, Network, Recipe, Row
from tools.compare.training import Clock, Machine

METHODS = Registry('method')


@dataclass
class Found:
    """What a method found.

    Attributes:
        network (nn.Module): An ordinary network.
        structure (list[dict]): Units with name, kind, kept and total, where
            the method has units.
        trace (list[dict]): Points of the search.
        decision (dict): Who decided the structure, see
            :class:`dms_razor.core.decision.Decision`.
        clock (Clock): What it took; pretraining is not in it.
        steps, images (int): Steps of the search and images it saw.
        recalibrated (bool): Whether BatchNorm statistics are its own.
    """
    network: nn.Module
    structure: List[Dict[str, Any]] = field(default_factory=list)
    trace: List[Dict[str, Any]] = field(default_factory=list)
    decision: Dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    steps: int = 0
    images: int = 0
    recalibrated: bool = False


@dataclass
class Job:
    """What a method is to do, and with what.

    Attributes:
        experiment, row, images, machine: As they are named.
        label, amount (str, float): The budget, and what it is in units of the
            metric.
        seed (int): Of the run.
        folder (Path): Where the network's export goes.
        supernet (callable): Makes the supernet, random or pretrained.
        once (callable): ``once(name, make)`` keeps what ``make()`` gives for
            all runs of this experiment.
    """
    experiment: Experiment
    row: Row
    images: Images
    machine: Machine
    label: str
    amount: float
    seed: int
    folder: Path
    supernet: Callable[[], nn.Module]
    once: Callable[[str, Callable], Dict[str, Any]]

    @property
    def what(self) -> str:
        """How progress calls this run."""
        return f'{self.row.name} {self.label} seed {self.seed}:'

    @property
    def recipe(self) -> Recipe:
        """How weights are trained during the search."""
        return self.row.recipe or self.experiment.search

    @property
    def search_data(self) -> int:
        """Seed of the batches of a search: not those of the training."""
        return 1000 + self.seed

    @property
    def recalibrates(self) -> bool:
        """Whether the found network's statistics are wanted."""
        return self.row.recalibrate and self.row.after != 'scratch'

    def batches(self, number: int) -> List[Any]:
        """Some training batches with labels, not augmented."""
        batches = self.images.plain_batches(self.recipe.batch, self.seed)
        return [batch for batch, _ in zip(batches, range(number))]

    def search(self, network: nn.Module, **kwargs: Any) -> Search:
        """A search of a network for this budget, with the row's arguments."""
        return Search(
            network, self.images.example, **{
                'target': float(self.amount),
                'metric': self.experiment.metric,
                'seed': self.seed,
                **kwargs,
                **self.row.search
            })

    def exported(self, search: Search, **found: Any) -> Found:
        """Cut out what a search stands at for this budget."""
        structure = search.space.layout.structure(
            search.project(float(self.amount)), search.bank.ratios)
        searched = search.bank.motion.account.steps > 0
        decision = search.decision().to_dict() if searched else {}
        bn_data = self.images.plain_batches(self.recipe.batch, self.seed) \
            if self.recalibrates else None
        export = search.export(
            self.folder,
            target=float(self.amount),
            bn_data=bn_data,
            picture=False)
        return Found(
            export.model,
            structure,
            decision=decision,
            recalibrated=self.recalibrates,
            **found)


def cost(network: nn.Module, example: Tensor, metric: str = 'macs') -> int:
    """What one sample costs, counted on the network itself.

    Both are where the example is, and stay there.
    """
    return METRICS.find(metric).count(network, example, None).total


def cost_of(network: Network, images: Images, metric: str = 'macs') -> int:
    """What one sample costs a network that is still to be made."""
    made = network(classes=images.classes).to(images.example.device)
    return cost(made, images.example, metric)


def amounts(experiment: Experiment, images: Images) -> Dict[str, float]:
    """Budgets by label in units of the metric.

    Raises:
        TargetError: One cannot be read, or is above the supernet.
    """
    metric = experiment.metric
    whole = cost_of(experiment.network, images, metric)

    def amount(budget: Budget) -> Union[int, float]:
        if callable(budget):
            budget = cost_of(budget, images, metric)
        return parse_target(budget, whole, metric)

    return {
        label: amount(budget)
        for label, budget in experiment.labelled.items()
    }


def task_loss(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of a batch of images and labels."""
    return F.cross_entropy(model(batch[0]), batch[1])


def layers(model: nn.Module) -> Dict[str, int]:
    """Output width of every convolution and linear layer."""
    return {
        name: module.weight.shape[0]
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    }


def params(model: nn.Module) -> int:
    """Elements of all parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
