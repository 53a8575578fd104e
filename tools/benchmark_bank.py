# Copyright (c) dms_razor contributors. All rights reserved.
"""Time the update of a search's state against one stable sort of its size.

A network of so many elements is made up: a chain of widths of 64 to 2,048
channels, every fourth layer a stage of eight blocks, all units with a
resource term. In each round a vector of as many random float64 numbers is
sorted, the search is updated, and the vector is sorted again; all in seconds
of CPU time on one thread, so that a busy machine takes part in neither.

JSON: for each size elements, units, sort_s and update_s (medians), ratio
(update over sort) and control_ratio (sort over sort); slope, the exponent of
the update's growth from each size to the next.
"""
import argparse
import json
import math
import statistics
import time
from typing import Callable, Dict, List, Tuple

import torch

from dms_razor.core import Axis, Bank, Cost, Layout, ResourceModel, Term, Unit
from dms_razor.core.constraint import Constraint
from dms_razor.subnet.files import write_text

WIDTHS, BLOCKS = (64, 128, 256, 512, 1024, 2048), 8


def network(elements: int) -> Tuple[Layout, ResourceModel]:
    """Units with about so many elements, and what they cost."""
    units, total = [], 0
    while total < elements:
        number = len(units)
        size = WIDTHS[number % len(WIDTHS)] if number % 4 else BLOCKS
        kind = 'width' if number % 4 else 'depth'
        units.append(Unit(f'u{number}', kind, min(size, elements - total)))
        total += units[-1].elements
    layout = Layout(units)
    axes = [Axis((Term(1, (1 + u, )), )) for u in range(layout.U)]
    wide = [u for u, unit in enumerate(units) if unit.kind == 'width']
    blocks = layout.depth_elements.nonzero().flatten().tolist()
    costs = [
        Cost(f'c{first}', 'Linear', 'macs', 1., (first, second),
             tuple(blocks[first % len(blocks):][:1]))
        for first, second in zip(wide, wide[1:] + wide[:1])
    ]
    return layout, ResourceModel(axes, costs, layout)


def updater(elements: int) -> Tuple[Callable[[], float], int]:
    """What updates in the middle of a search and gives the CPU seconds it
    took; and the number of units."""
    layout, resource = network(elements)
    bank = Bank(layout, lr='auto')
    bank.motion.auto.length = 1000
    constraint = Constraint(resource, 'macs', None, None)
    target = .7 * resource.supernet()
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(layout.E, generator=generator) / layout.E

    def update() -> float:
        # as a network would have it: much the same from step to step
        noise = torch.rand(layout.E, generator=generator) / layout.E
        bank.masks.grad = -(weights + .3 * noise)
        bank.scale.grad = torch.ones(())
        started = time.process_time()
        constraint.update(bank, target)
        return time.process_time() - started

    return update, layout.U


def measure(elements: int, rounds: int) -> Dict[str, float]:
    """Medians over some rounds; see the module's docstring for the keys."""
    update, units = updater(elements)
    vector = torch.rand(elements, dtype=torch.float64)

    def sort() -> float:
        started = time.process_time()
        torch.sort(vector, stable=True)
        return time.process_time() - started

    for _ in range(3):
        update()
    times = [(sort(), update(), sort()) for _ in range(rounds)]
    middle = statistics.median
    return dict(
        elements=elements,
        units=units,
        sort_s=middle(t for first, _, last in times for t in (first, last)),
        update_s=middle(updated for _, updated, _ in times),
        ratio=middle(2 * updated / (first + last)
                     for first, updated, last in times),
        control_ratio=middle(last / first for first, _, last in times))


def draw(rows: List[Dict[str, float]], path: str) -> None:
    """Update and sort by size, both axes logarithmic."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axis = plt.subplots(figsize=(6, 4))
    sizes = [row['elements'] for row in rows]
    for name, label in (('update_s', 'update of a search'),
                        ('sort_s', 'one stable sort')):
        axis.loglog(sizes, [row[name] for row in rows], 'o-', label=label)
    axis.set_xlabel('elements')
    axis.set_ylabel('CPU seconds, one thread')
    axis.grid(alpha=.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    head, _, more = __doc__.partition('\n')
    parser = argparse.ArgumentParser(
        description=head,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        default=[10**4, 10**5, 10**6, 10**7],
        help='numbers of elements')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--json', metavar='FILE', help='- prints JSON alone')
    parser.add_argument('--picture', metavar='FILE', help='draw them there')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(size, args.rounds) for size in args.sizes]
    slope = [
        math.log(b['update_s'] / a['update_s']) /
        math.log(b['elements'] / a['elements'])
        for a, b in zip(rows, rows[1:])
    ]
    if args.picture:
        draw(rows, args.picture)
    lines = ['elements    units   sort, s  update, s  ratio  control']
    lines += [
        f'{row["elements"]:>10,} {row["units"]:>6,} {row["sort_s"]:>9.4f} '
        f'{row["update_s"]:>10.4f} {row["ratio"]:>6.2f} '
        f'{row["control_ratio"]:>8.3f}' for row in rows
    ]
    lines.append('exponents: ' + ', '.join(f'{x:.2f}' for x in slope))
    content = json.dumps(dict(sizes=rows, slope=slope), indent=2)
    print(content if args.json == '-' else '\n'.join(lines))
    if args.json not in (None, '-'):
        write_text(args.json, content + '\n')


if __name__ == '__main__':
    main()
