# Copyright (c) dms_razor contributors. All rights reserved.
"""What an experiment is: plain data that a Python file of the user's fills in.

    experiment = Experiment(
        network=lambda classes: MyNet(num_classes=classes),
        budgets=['50%', '2.0M'],
        rows=[Row('dms'), Row('even', 'uniform')])

A network is a callable that gets ``classes``, the number of classes of the
data, and returns an ``nn.Module`` from images ``[B, 3, size, size]`` to
logits ``[B, classes]``.
"""
import functools
import importlib.util
import math
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from torch import nn

Network = Callable[..., nn.Module]
Budget = Union[float, str, Network]

SHIPPED = Path(__file__).parent / 'experiments'
AFTER = ('scratch', 'finetune', 'none')
SCHEDULES = ('one_cycle', 'cosine', 'constant')
OPTIMIZERS = ('sgd', 'adamw')


class ExperimentError(ValueError):
    """An experiment that cannot be run as it is written."""


def one_of(what: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse a word that means nothing here.

    Raises:
        ExperimentError: It names the value and those that are allowed.
    """
    if value not in allowed:
        raise ExperimentError(f'{what} is {value!r}: choose one of '
                              f'{", ".join(allowed)}')


@dataclass(frozen=True)
class Data:
    """Which images are used, and how.

    Attributes:
        size (int): Side of the images in pixels; larger ones are averaged
            down.
        train_images, test_images (int, optional): A fixed subset, drawn with
            seed 0; by default all of them.
        mean, std (float): Of the channels in [0, 1].
        shift (float): Largest shift as a share of the size, one a batch.
        flip (bool): Whether images are mirrored; never digits.
    """
    size: int = 32
    train_images: Optional[int] = None
    test_images: Optional[int] = None
    mean: float = .47
    std: float = .25
    shift: float = 1 / 8
    flip: bool = True


@dataclass(frozen=True)
class Recipe:
    """How weights are trained.

    Attributes:
        epochs (float): Length in epochs; in whole batches, what is left of an
            epoch is dropped.
        steps (int, optional): Length in steps, instead of epochs.
        batch (int): Images a step.
        lr (float): Step size of the weights, its peak.
        schedule (str): 'one_cycle' (up for ``warmup``, down by a cosine),
            'cosine' (down from the start) or 'constant'.
        warmup (float): Share of the steps in which 'one_cycle' goes up.
        optimizer (str): 'sgd' (Nesterov) or 'adamw'.
        momentum, weight_decay, label_smoothing (float): As in PyTorch.
    """
    epochs: float = 12
    steps: Optional[int] = None
    batch: int = 128
    lr: float = .2
    schedule: str = 'one_cycle'
    warmup: float = .15
    optimizer: str = 'sgd'
    momentum: float = .9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.

    def __post_init__(self) -> None:
        one_of('the schedule of a recipe', self.schedule, SCHEDULES)
        one_of('the optimizer of a recipe', self.optimizer, OPTIMIZERS)

    def epoch(self, images: int) -> int:
        """Steps of one epoch of so many images.

        Raises:
            ExperimentError: If there is not one whole batch.
        """
        if images < self.batch:
            raise ExperimentError(
                f'{images} training images are less than one batch of '
                f'{self.batch}: give more images or a smaller batch')
        return images // self.batch

    def length(self, images: int) -> int:
        """Steps of the whole recipe."""
        if self.steps is not None:
            return self.steps
        return round(self.epochs * self.epoch(images))


@dataclass(frozen=True)
class Row:
    """One line of the table: how a network is found, and trained after it.

    Attributes:
        name (str): What the table calls it.
        method (str): A name of :data:`tools.compare.methods.METHODS`.
        network (callable, optional): The network of method 'network'.
        supernet (callable, optional): The network that this row searches or
            narrows; by default the experiment's, which shares of the budgets
            are shares of in any case.
        search (dict): Further arguments of ``dms_razor.Search``.
        options (dict): Arguments of the method itself.
        recipe (Recipe, optional): How the supernet's weights are trained
            while it is searched; by default the experiment's ``search``.
        width_only_epochs (float, optional): Epochs after it in which only
            widths move; by default the experiment's.
        train (Recipe, optional): What follows, by default the experiment's.
        after (str): 'scratch' (new weights, then trained), 'finetune' (the
            found network's weights, trained on) or 'none'.
        recalibrate (bool): Whether the found network's BatchNorm statistics
            are taken anew; nothing to 'scratch'.
        pretrained (bool): Whether the supernet is the pretrained one, where
            the experiment has one.
        one_search (bool): Search once, at the smallest budget, and export
            every budget from it; rows that differ only in what follows share
            the search.
        budgets (sequence of str, optional): Labels of the budgets this row
            is run at; by default all.
    """
    name: str
    method: str = 'dms'
    network: Optional[Network] = None
    supernet: Optional[Network] = None
    search: Dict[str, Any] = field(default_factory=dict)
    options: Dict[str, Any] = field(default_factory=dict)
    recipe: Optional[Recipe] = None
    width_only_epochs: Optional[float] = None
    train: Optional[Recipe] = None
    after: str = 'scratch'
    recalibrate: bool = True
    pretrained: bool = True
    one_search: bool = False
    budgets: Optional[Sequence[str]] = None

    def __post_init__(self) -> None:
        one_of(f'"after" of row "{self.name}"', self.after, AFTER)
        if (self.network is None) == (self.method == 'network'):
            raise ExperimentError(
                f'row "{self.name}": "network" goes with method="network" '
                'and with no other; give both or none')
        if self.supernet is not None and self.method == 'network':
            raise ExperimentError(
                f'row "{self.name}": a network that was made by hand has no '
                'supernet; leave "supernet" out')


@dataclass(frozen=True)
class Experiment:
    """A table: rows by budgets by seeds.

    Attributes:
        network (callable): The supernet, see the module's docstring.
        rows (sequence of Row): The lines of the table.
        budgets (sequence or dict): Targets as ``Search`` takes them ('50%',
            '2.0M', .3), or a network that is to be matched; a dict names
            them.
        data (Data): The images.
        search (Recipe): The weights' training during a search; the paper has
            no pretraining by default (its pipeline DMS_np).
        width_only_epochs (float): Epochs after the search in which depth is
            frozen and only widths move.
        train (Recipe): The training of what was found.
        pretrain (Recipe, optional): The training of the supernet before
            anything is searched, once a seed.
        init (callable, optional): ``init(network)`` gives new weights in
            place; by default every module's ``reset_parameters``.
        references (sequence of str): Rows that the others are compared with,
            seed by seed.
        metric (str): What budgets limit.
        title (str): Stands above the table.
        judge (callable, optional): ``judge(record, path)`` looks a finished
            run up in a file, which ``--judge`` names, and returns further
            figures by name; they become columns of the table.
    """
    network: Network
    rows: Sequence[Row]
    budgets: Union[Sequence[Budget], Dict[str, Budget]] = ('50%', )
    data: Data = Data()
    search: Recipe = Recipe(epochs=4, lr=.1, schedule='constant')
    width_only_epochs: float = 1
    train: Recipe = Recipe()
    pretrain: Optional[Recipe] = None
    init: Optional[Callable[[nn.Module], Any]] = None
    references: Sequence[str] = ()
    metric: str = 'macs'
    title: str = ''
    judge: Optional[Callable[[Dict[str, Any], Path], Dict[str, float]]] = None

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        slugs = {slug(name) for name in names}
        if not names or len(slugs) < len(names):
            raise ExperimentError(f'the rows are named {names}: give at least '
                                  'one row, and every row a name of its own')
        unknown = set(self.references) - set(names)
        if unknown:
            raise ExperimentError(f'references {sorted(unknown)} are no rows; '
                                  f'the rows are {names}')
        for row in self.rows:
            for label in row.budgets or ():
                one_of(f'a budget of row "{row.name}"', label,
                       list(self.labelled))

    @property
    def labelled(self) -> Dict[str, Budget]:
        """Budgets by the label that the table shows."""
        if isinstance(self.budgets, dict):
            return dict(self.budgets)
        return {_label(budget): budget for budget in self.budgets}

    def supernet(self, row: Row) -> Network:
        """What a row searches or narrows."""
        return row.supernet or self.network

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
            ExperimentError: There is none.
        """
        one_of('the row', name, [row.name for row in self.rows])
        return next(row for row in self.rows if row.name == name)


def _label(budget: Budget) -> str:
    if callable(budget):
        return getattr(budget, '__name__', 'network')
    if isinstance(budget, float) and budget <= 1:
        return f'{100 * budget:g}%'
    return str(budget)


def slug(name: str) -> str:
    """A name as part of a file's name."""
    name = name.replace('%', 'pct')
    return ''.join(c if c.isalnum() or c in '.+-' else '_' for c in name)


def plain(value: Any) -> Any:
    """Settings as JSON has them; a callable by its name and arguments.

    What is None or empty is left out, so that settings which an experiment
    does not use may be added without a change of it.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        return {
            str(key): plain(item)
            for key, item in value.items() if item not in (None, {}, [], ())
        }
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, functools.partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, '__qualname__', type(value).__qualname__)


def shipped() -> List[str]:
    """Names of the experiments that come with the tool."""
    return sorted(path.stem for path in SHIPPED.glob('[!_]*.py'))


def load(name: str) -> Tuple[str, Experiment]:
    """An experiment and its name, from a file or from those shipped.

    The file may import modules that lie beside it.

    Raises:
        ExperimentError: There is no such file, or it defines no experiment.
    """
    path = Path(name)
    if path.suffix != '.py':
        path = SHIPPED / f'{name}.py'
    if not path.is_file():
        raise ExperimentError(
            f'there is no experiment "{name}": give a Python file, or one of '
            f'{", ".join(shipped())}')
    folder = str(path.resolve().parent)
    if folder not in sys.path and path.parent != SHIPPED:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = getattr(module, 'experiment', None)
    if not isinstance(experiment, Experiment):
        raise ExperimentError(f'{path} defines no experiment: it has to say '
                              '"experiment = Experiment(...)"')
    return path.stem, experiment
