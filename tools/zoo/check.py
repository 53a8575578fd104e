# Copyright (c) dms_razor contributors. All rights reserved.
"""Is a network searched truly? One row of the coverage table for each.

A row is made by the whole way from a network to a trained subnet: trace it,
draw random ratios for all units, export, build the export again without
tracing, compare supernet, subnet and rebuilt network, train one step. What
cannot be pruned is named with its reason. ``tools/zoo`` does this for
every backbone that mmpretrain registers.
"""
import copy
import math
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dms_razor.masking import attach, unmask
from dms_razor.network import tensors_of
from dms_razor.proof.noise import EqualNoise
from dms_razor.proof.precision import double_network, double_precision
from dms_razor.subnet import apply_manifest, export_subnet, load_weights
from dms_razor.trace import trace
from dms_razor.tracing.modes import as_trained

#: Largest difference over largest output that counts as equal.
BOUND = 1e-4
#: The same in train mode, where both compute in float64.
TRAIN_BOUND = 1e-6
#: Above this, rounding is told from error in float64.
SHARP = 1e-5
_DRAWS = 10


@dataclass
class Row:
    """What one network showed.

    Attributes:
        name (str): The network.
        units (dict[str, int]): Ratios by kind.
        elements (int): Elements of all units.
        params (int): Parameters of the network.
        share (float): Share of its parameters that some unit can remove.
        width_share (float): The same without depth units.
        difference (float, optional): Largest difference between masked
            supernet and subnet, over the largest output.
        fixed (dict[str, list[str]]): Reason -> modules that stay.
        problem (str): What went wrong; empty if nothing did.
        seconds (float): How long it took.
        precision (str): Of the comparison, 'float32' or 'float64'.
        train_difference (float, optional): As ``difference``, in train mode,
            in float64, on two samples, with the same random numbers.
    """
    name: str
    units: Dict[str, int] = field(default_factory=dict)
    elements: int = 0
    params: int = 0
    share: float = 0.
    width_share: float = 0.
    difference: Optional[float] = None
    fixed: Dict[str, List[str]] = field(default_factory=dict)
    problem: str = ''
    seconds: float = 0.
    precision: str = 'float32'
    train_difference: Optional[float] = None

    @property
    def equal(self) -> bool:
        """Whether supernet and subnet compute the same."""
        return not self.problem and self.difference is not None \
            and self.difference < BOUND and (
                self.train_difference is None
                or self.train_difference < TRAIN_BOUND)


class Pooled(nn.Module):
    """A classifier around a backbone, whatever shape its output has.

    Every tensor that comes out is averaged over its positions and read by a
    linear layer, so that the width of the output can be searched too.

    Args:
        backbone (nn.Module): The backbone.
        inputs (Tensor): Images, to learn the widths from.
        classes (int): Outputs. Defaults to 10.
        tokens (int): Axis of the positions in ``[B, N, C]``. Defaults to 1.
    """

    def __init__(self,
                 backbone: nn.Module,
                 inputs: Tensor,
                 classes: int = 10,
                 tokens: int = 1) -> None:
        super().__init__()
        self.tokens = tokens
        self.backbone = backbone
        backbone.eval()
        with torch.no_grad():
            widths = [f.shape[1] for f in self.features(inputs)]
        self.heads = nn.ModuleList(nn.Linear(w, classes) for w in widths)

    def features(self, x: Tensor) -> List[Tensor]:
        """Tensors of the output, ``[B, C]`` each."""
        positions = {3: (self.tokens, ), 4: (2, 3)}
        return [
            t.mean(positions[t.dim()]) if t.dim() > 2 else t
            for t in tensors_of(self.backbone(x)) if t.is_floating_point()
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[B, 3, H, W]`` to ``[B, classes]``."""
        return sum(
            head(feature)
            for head, feature in zip(self.heads, self.features(x)))


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random numbers for all parameters and statistics, in place.

    With a zero head, gamma or layer scale every comparison would be 0.0 and
    prove nothing.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor) -> Tensor:
        return torch.rand(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1 and tensor.shape[0] > 1:
                # Strong enough that attention looks at its input.
                fan_in = tensor.numel() // tensor.shape[0]
                tensor.copy_((2 * noise(tensor) - 1) * (6 / fan_in)**.5)
            elif tensor.dim() > 1 or name.endswith('bias'):
                tensor.copy_(noise(tensor) - .5)
            else:
                tensor.copy_(.5 + noise(tensor))
        for name, tensor in model.named_buffers():
            if name.endswith('running_mean'):
                tensor.copy_(.2 * noise(tensor) - .1)
            elif name.endswith('running_var'):
                # Below 1: pruned layers lose variance, which would let the
                # input fade away in a deep network.
                tensor.copy_(.15 + .6 * noise(tensor))
    return model


def removable_shares(model: nn.Module, space) -> Dict[str, float]:
    """Share of parameters that a subnet can lack, by all units and by width.

    Returns:
        dict[str, float]: ``share`` (all units) and ``width_share`` (without
        depth units).
    """
    blocks = tuple(f'{part.path}.' for block in space.blocks
                   for part in block.stand_ins)
    total = in_width = in_any = 0
    for name, parameter in model.named_parameters():
        number = parameter.numel()
        can_go = number * (1 - math.prod(
            float((site.index < 0
                   ).view(len(site.index), -1).all(1).double().mean())
            for site in space.slice_sites.get(name, ())))
        total += number
        in_width += can_go
        in_any += number if name.startswith(blocks) else can_go
    return dict(share=in_any / total, width_share=in_width / total)


def check_network(name: str,
                  model: nn.Module,
                  inputs: Tensor,
                  seed: int = 0) -> Row:
    """Take a network the whole way; see the module's docstring.

    Args:
        name (str): Its name in the table.
        model (nn.Module): The network; its weights become random.
        inputs (Tensor): One example image, ``[1, 3, H, W]``.
        seed (int): Of weights and ratios. Defaults to 0.

    Returns:
        Row: What it showed. Nothing is raised: a problem is in the row.
    """
    row = Row(name, params=sum(p.numel() for p in model.parameters()))
    start = time.perf_counter()
    try:
        _fill(row, model, inputs, seed)
    except Exception as error:
        row.problem = f'{type(error).__name__}: {error}'
    row.seconds = time.perf_counter() - start
    return row


def _fill(row: Row, model: nn.Module, inputs: Tensor, seed: int) -> None:
    randomise(model, seed).eval()
    space = trace(model, inputs)
    row.units = dict(Counter(unit.kind for unit in space.units))
    row.elements = space.layout.E
    for item in space.full_width:
        row.fixed.setdefault(item.reason, []).append(item.module)
    vars(row).update(removable_shares(model, space))
    selection, expected = _draw(model, space, inputs, seed)
    fresh = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'subnet'
        export = export_subnet(path, model, space, selection, picture=False)
        apply_manifest(fresh, export.manifest)
        load_weights(fresh, path / 'subnet.pth')
    row.difference = max(
        _difference(expected, net, inputs) for net in (export.model, fresh))
    if row.difference > SHARP:
        # A sharp softmax or a nearest neighbour amplifies rounding: only
        # float64 tells whether it is the same function.
        model, fresh, inputs = model.double(), fresh.double(), inputs.double()
        row.precision = 'float64'
        row.difference = _difference(
            _masked(model, space, selection, inputs), fresh, inputs)
        fresh, inputs = fresh.float(), inputs.float()
    row.train_difference = _in_train_mode(model, fresh, space, selection,
                                          inputs)
    if not row.equal:
        row.problem = 'supernet and subnet differ'
        return
    _train_step(fresh, inputs)


def _draw(model: nn.Module, space, inputs: Tensor, seed: int):
    """Random ratios of all units, and the logits of the masked supernet.

    Raises:
        ValueError: No subnet of several depends on its input, so that a
            comparison would say little.
    """
    for number in range(_DRAWS):
        selection = space.random_selection(
            torch.Generator().manual_seed(1000 * seed + number))
        a, b = (
            _masked(model, space, selection, x)
            for x in (inputs, -inputs.flip(-1)))
        if float((a - b).abs().max() / a.abs().max()) > 10 * BOUND:
            return selection, a
    raise ValueError('no subnet drawn depends on its input')


@torch.no_grad()
def _masked(model: nn.Module, space, selection: Tensor,
            inputs: Tensor) -> Tensor:
    """Logits of the supernet under hard masks."""
    masks = selection.to(next(model.parameters()))
    attach(model, space, lambda: masks)
    try:
        return model(inputs)
    finally:
        unmask(model)


@torch.no_grad()
def _difference(expected: Tensor, model: nn.Module, inputs: Tensor) -> float:
    largest = expected.abs().max()
    if not (bool(torch.isfinite(expected).all()) and bool(largest > 0)):
        raise ValueError('the supernet returns nothing finite to compare')
    return float((expected - model.eval()(inputs)).abs().max() / largest)


def _in_train_mode(model: nn.Module, subnet: nn.Module, space,
                   selection: Tensor, inputs: Tensor) -> float:
    """Largest difference over the largest output, in float64."""
    inputs = torch.cat([inputs, inputs.flip(-1)]).double()

    def run(network: nn.Module, masks: Optional[Tensor] = None) -> Tensor:
        network = double_network(copy.deepcopy(network))
        if masks is not None:
            attach(network, space, lambda: masks)
        with as_trained(network), EqualNoise(), double_precision():
            return network(inputs)

    expected = run(model, selection.double())
    if not (bool(expected.isfinite().all()) and bool(expected.any())):
        raise ValueError('in train mode the supernet returns nothing finite')
    found = run(subnet)
    return float((expected - found).abs().max() / expected.abs().max())


def _train_step(model: nn.Module, inputs: Tensor) -> None:
    """One step of SGD must change the weights and leave them finite."""
    for module in model.modules():
        module.training = True
    before = copy.deepcopy(list(model.parameters()))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    logits = model(torch.cat([inputs, inputs.flip(-1)]))
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise ValueError('a training step of the subnet is not finite')
    if all(map(torch.equal, before, model.parameters())):
        raise ValueError('a training step of the subnet changes nothing')
