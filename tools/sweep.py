# Copyright (c) dms_razor contributors. All rights reserved.
"""One search, several budgets, one curve: export each, train each in turn.

    python tools/sweep.py my_search.py work_dirs/my_search/epoch_11.pth \
        --budgets 75% 50% 25%

The search should have had the smallest of the budgets. Table, picture and
numbers are written after each training.
"""
import sys
from functools import partial
from pathlib import Path
from typing import Dict

from _launch import build_runner, config_parser, guard_subnet, read_config
from mmengine.config import Config

from dms_razor.openmmlab.from_config import algorithm_of_config, load_search
from dms_razor.openmmlab.retrain import retrain_config
from dms_razor.subnet import Export, sweep


def train(export: Export, work_dir: Path) -> Dict[str, float]:
    """Run an export's retrain.py; the scores of its last validation."""
    cfg = Config.fromfile(export.path / 'retrain.py')
    cfg.work_dir = str(work_dir / 'training' / export.path.name)
    cfg.experiment_name = f'{work_dir.name}-{export.path.name}'
    guard_subnet(cfg)
    print(f'Training the subnet of {export.path.name} in {cfg.work_dir} …',
          flush=True)  # yapf: disable
    runner = build_runner(cfg)
    runner.train()
    scores = runner.val() if cfg.get('val_evaluator') else runner.test()
    return {
        name: value
        for name, value in scores.items() if isinstance(value, (int, float))
    }


def main() -> None:
    parser = config_parser(__doc__, 'config of the search')
    parser.add_argument('checkpoint', help='checkpoint of the search')
    parser.add_argument(
        '--budgets',
        nargs='+',
        required=True,
        metavar='TARGET',
        help='two or more budgets: 0.6, 60%%, 2.0G')
    parser.add_argument(
        '--out-dir', help='by default `sweep` beside the checkpoint')
    parser.add_argument(
        '--retrain-base',
        help='config whose training recipe the trainings take; by default '
        'the standard config that the search inherits')
    parser.add_argument(
        '--finetune',
        action='store_true',
        help='let the trainings start from the searched weights')
    parser.add_argument(
        '--no-train',
        action='store_true',
        help='export only; every folder has its retrain.py')
    args = parser.parse_args()
    out_dir = Path(args.out_dir or Path(args.checkpoint).parent / 'sweep')
    try:
        cfg = read_config(args)
        retrain = retrain_config(
            cfg, args.retrain_base, from_search=args.finetune)
        if retrain is None and not args.no_train:
            raise ValueError('the search inherits no standard config that '
                             'could train its subnets: name one with '
                             '--retrain-base, or export only, --no-train')
        search = load_search(algorithm_of_config(cfg), args.checkpoint).search
        found = sweep(
            search,
            out_dir,
            args.budgets,
            None if args.no_train else partial(train, work_dir=out_dir),
            retrain=retrain)
    except (ValueError, TypeError, KeyError, RuntimeError, SyntaxError,
            OSError) as error:
        sys.exit(f'{type(error).__name__}: {error}')
    print(found.table())
    for path in sorted(out_dir.glob('sweep.*')):
        print(path)


if __name__ == '__main__':
    main()
