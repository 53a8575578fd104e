# Copyright (c) dms_razor contributors. All rights reserved.
"""What ``train.py`` and ``test.py`` share: arguments and the config."""
import argparse
import os
import os.path as osp

from mmengine.config import Config, DictAction

from dms_razor.compat import default_model_wrapper


def make_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that OpenMMLab's tools have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--work-dir', '--work_dir', help='folder for logs, models and results')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, where the value '
        'may be a list as in key="[a,b]" or key=a,b, or nested as in '
        'key="[(a,b),(c,d)]", without white space')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher')
    # torch's launcher writes the one or the other, by version
    parser.add_argument(
        '--local-rank',
        '--local_rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge what the command line says.

    The work_dir is the one of the command line, else of the config, else
    ``./work_dirs/NAME_OF_CONFIG``.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)
    default_model_wrapper(cfg)
    guard_subnet(cfg)
    return cfg


def guard_subnet(cfg: Config) -> None:
    """Let a subnet's config refuse checkpoints of other networks."""
    kind = cfg.get('model', {}).get('type', '')
    name = kind if isinstance(kind, str) else kind.__name__
    if name.split('.')[-1] == 'DMSSubModel':
        cfg.custom_hooks = list(cfg.get('custom_hooks') or []) + [
            dict(type='mmengine.SubnetCheckpointHook')
        ]
