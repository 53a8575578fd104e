# Copyright (c) dms_razor contributors. All rights reserved.
"""How well budgets in milliseconds and bytes hold on this machine.

    python tools/benchmark_latency.py configs/… --out work_dirs/latency/NAME

Measures the parts of a config's network and 20 subnets that take no part in
the fit, searches it for half its latency on random images and targets (what
it learns is not asked here), measures the export, and compares the peak of
the activations of the supernet and five subnets with what a forward pass
holds. The machine should do nothing else. Run again, a table that is there is
not measured again; `--pages FILE …` prints the tables of several results.
`--memory-on cuda` compares the peak of the activations alone, with what
PyTorch allocates there.
"""
import json
import sys
import weakref
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from _launch import config_parser, read_config
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from dms_razor.network import as_arguments, run_model, tensors_of
from dms_razor.openmmlab.from_config import (algorithm_of_config,
                                             space_of_config)
from dms_razor.space import Space
from dms_razor.subnet.files import write_text
from dms_razor.subnet.slicing import plain_copy, slice_model
from dms_razor.timing.bench import Here
from dms_razor.timing.clock import Setting
from dms_razor.timing.measure import measure, spearman, spread_subnets
from dms_razor.trace import trace

TARGET = .5
MEMORY_SUBNETS = 5
#: Images of a forward pass on a GPU, where blocks of 512 bytes are given out.
ON_GPU = 16


class Held(TorchDispatchMode):
    """Bytes of the storages that an eval forward holds, and their peak.

    It sees ATen's tensors and the death of their storages alone, and shares
    nothing with the metric that it is compared with.

    Args:
        known (Sequence[Tensor]): What was there before: weights and inputs.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.data_ptr() for tensor in known}
        self.live: Dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                place = storage.data_ptr()
                if place not in self.known and place not in self.live:
                    self.live[place] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, place, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


def held(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Peak bytes of one forward pass in eval mode."""
    mode = Held([*model.parameters(), *model.buffers(), *inputs])
    with torch.no_grad(), mode:
        run_model(model.eval(), *inputs)
    return mode.peak


def memory(model: nn.Module, space: Space) -> List[Dict[str, float]]:
    """Counted and held bytes of the supernet and of some subnets."""
    inputs, _ = as_arguments(space.example_inputs, run_model)
    space = trace(model, inputs, metrics=['memory'])
    rows = []
    for selection in spread_subnets(space, MEMORY_SUBNETS + 1, seed=2):
        subnet = slice_model(plain_copy(model), space, selection)
        rows.append(
            dict(
                counted=space.cost(selection, 'memory'),
                held=held(subnet, inputs)))
    return rows


def memory_on(device: str, model: nn.Module,
              space: Space) -> List[Dict[str, float]]:
    """Counted bytes, and those that were allocated on a GPU."""
    (example, ), _ = as_arguments(space.example_inputs, run_model)
    space = trace(model, (example, ), metrics=['memory'])
    images = torch.randn(ON_GPU, *example.shape[1:], device=device)
    rows = []
    for selection in spread_subnets(space, MEMORY_SUBNETS + 1, seed=2):
        subnet = slice_model(plain_copy(model), space, selection)
        subnet.eval().to(device)
        with torch.no_grad():
            run_model(subnet, images)  # kernels take their workspace
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            outputs = run_model(subnet, images)
        rows.append(
            dict(
                counted=ON_GPU * space.cost(selection, 'memory'),
                held=torch.cuda.max_memory_allocated(device) - before))
        del outputs
    return rows


def searched(cfg: Config, table: Path, folder: Path,
             steps: int) -> Dict[str, float]:
    """A short search for half the latency, and its export as measured."""
    cfg = cfg.copy()
    cfg.model.update(
        metric='latency', latency_table=str(table), target=f'{TARGET:.0%}')
    cfg.model.pop('resource_loss', None)
    cfg.model.get('mutator', {}).pop('lr', None)
    torch.manual_seed(0)
    search = algorithm_of_config(cfg).search
    model, (example, ) = search.model, search.space.example_inputs
    search.set_length(steps)
    optimizer = torch.optim.SGD(model.parameters(), .01)
    search.attach(optimizer)
    wanted = [
        torch.randn_like(t) for t in tensors_of(
            run_model(model.train(), example.expand(2, -1, -1, -1)))
    ]
    for _ in range(steps):
        images = torch.randn(2, *example.shape[1:])
        outputs = tensors_of(run_model(model, images))
        loss = sum((out.float() - t).square().mean()
                   for out, t in zip(outputs, wanted))
        optimizer.zero_grad()
        search.loss(loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
    export = search.export(folder, picture=False)
    return dict(
        export.manifest.measured,
        supernet=search.space.resource.supernet('latency'),
        macs=export.report.cost('macs') /
        search.space.resource.supernet('macs'))


def middle_third(points: Dict[str, Any]) -> float:
    """Correlation of the ranks of the subnets of middling MACs."""
    order = sorted(range(len(points['macs'])), key=points['macs'].__getitem__)
    part = order[len(order) // 3:len(order) - len(order) // 3]
    return spearman(*(torch.tensor([points[name][i] for i in part])
                      for name in ('predicted', 'measured')))


def pages(files: Sequence[str]) -> str:
    """Results of several networks as tables."""
    fits, halves, peaks = [], [], []
    for file in files:
        found = json.loads(Path(file).read_text(encoding='utf-8'))
        name, points = found['name'], found['held_out']
        shares = [macs / found['supernet_macs'] for macs in points['macs']]
        fits.append(
            f'| {name} | {found["fit"]["measured"][0]:.1f} | '
            f'{min(shares):.0%}–{max(shares):.0%} | '
            f'{points["spearman"]:.3f} | {middle_third(points):.3f} | '
            f'{points["median_error"]:.1%} | {points["error_95"]:.1%} |')
        half = found['half']
        halves.append(
            f'| {name} | {half["limit"]:.2f} | {half["predicted"]:.2f} | '
            f'{half["measured"]:.2f} | '
            f'{half["measured"] / half["limit"] - 1:+.1%} | '
            f'{half["macs"]:.0%} |')
        errors = [row['counted'] / row['held'] - 1 for row in found['memory']]
        peaks.append(f'| {name} | {found["memory"][0]["held"] / 2**20:.2f} | '
                     f'{errors[0]:+.1%} | {min(errors[1:]):+.1%} to '
                     f'{max(errors[1:]):+.1%} |')
    return '\n'.join([
        '| network | whole (ms) | MACs of the subnets | Spearman | of the '
        'middle third | median error | 95th percentile |', '| --- ' * 7 + '|',
        *fits, '',
        '| network | limit (ms) | predicted | measured | measured over the '
        'limit | MACs kept |', '| --- ' * 6 + '|', *halves, '',
        '| network | peak of the supernet (MiB) | counted against held | of '
        'five subnets |', '| --- ' * 4 + '|', *peaks
    ])


def main() -> None:
    if sys.argv[1:2] == ['--pages']:
        print(pages(sys.argv[2:]))
        return
    parser = config_parser(__doc__, 'config of a search')
    parser.add_argument('--out', required=True, help='folder of the results')
    parser.add_argument('--steps', type=int, default=30, help='of the search')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--memory-on', metavar='DEVICE')
    args = parser.parse_args()
    cfg, folder = read_config(args), Path(args.out)
    table = folder / 'latency.json'
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    model, space = space_of_config(cfg)
    if args.memory_on:
        for row in memory_on(args.memory_on, model, space):
            print(f'{row["counted"]:,.0f} bytes counted, {row["held"]:,} '
                  f'allocated: {row["counted"] / row["held"] - 1:+.1%}')
        return
    if not (table.exists() and '"checksum"' in table.read_text()):
        measure(
            model,
            space,
            Here(Setting('onnxruntime', args.threads)),
            table,
            held_out=20)
    known = json.loads(table.read_text(encoding='utf-8'))
    result = dict(
        name=folder.name,
        setting=known['setting'],
        input=known['input'],
        fit=known['fit'],
        held_out=known['held_out'],
        supernet_macs=space.resource.supernet('macs'),
        memory=memory(model, space),
        half=searched(cfg, table, folder / 'subnet', args.steps))
    write_text(folder / 'result.json', json.dumps(result, indent=1) + '\n')
    print(pages([str(folder / 'result.json')]))


if __name__ == '__main__':
    main()
