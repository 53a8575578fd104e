# Copyright (c) dms_razor contributors. All rights reserved.
"""What tools that read a config share: arguments, the config, the runner."""
import argparse
import ast
import json
import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from dms_razor.compat import default_model_wrapper
from dms_razor.subnet.files import write_text


def config_parser(description: str,
                  of_config: str,
                  as_json: bool = False) -> argparse.ArgumentParser:
    """A config and overrides of its settings.

    Args:
        description (str): What the tool does; its first line is the headline.
        of_config (str): What config it takes.
        as_json (bool): Whether it has a result that :func:`tell` writes.
    """
    head, _, more = description.partition('\n')
    parser = argparse.ArgumentParser(
        description=head,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help=of_config)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, where the value '
        'may be a list as in key="[a,b]" or key=a,b, or nested as in '
        'key="[(a,b),(c,d)]", without white space')
    if as_json:
        parser.add_argument(
            '--json',
            metavar='FILE',
            help='write the result as JSON to this file; - prints nothing '
            'else')
    return parser


def at_least(least: int, hint: str) -> Callable[[str], int]:
    """The type of an argument that is a whole number from ``least`` on."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(hint)
        return int(text)

    return number


def tell(args: argparse.Namespace, result: Dict[str, Any], text: str) -> None:
    """Print a result; as JSON too, where ``--json`` asks for it."""
    content = json.dumps(result, indent=2)
    print(content if args.json == '-' else text)
    if args.json not in (None, '-'):
        try:
            write_text(args.json, content + '\n')
        except OSError as error:
            sys.exit(f'{args.json} cannot be written: {error}')


def read_config(args: argparse.Namespace) -> Config:
    """The config, with the overrides of the command line."""
    _check_file(Path(args.config))
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    return cfg


def _check_file(path: Path) -> None:
    """End with a line if a config is no file, or code of something else."""
    if path.is_dir():
        inside = path / 'retrain.py'
        sys.exit(f'{path} is a folder and no config: name ' +
                 (str(inside) if inside.exists() else 'a file in it'))
    if not path.exists() and '::' not in str(path):
        sys.exit(f'there is no config {str(path)!r}, seen from {Path.cwd()}: '
                 'name its file, or one of a package as PACKAGE::FILE')
    if not path.exists() or path.suffix != '.py':
        return  # of a package, or of another kind that mmengine reads
    try:
        body = ast.parse(path.read_text(encoding='utf-8')).body
    except (SyntaxError, ValueError):
        return  # mmengine shows where
    names = {
        name.id
        for node in body if isinstance(node, ast.Assign)
        for name in node.targets if isinstance(name, ast.Name)
    }
    inherits = any(isinstance(node, ast.With) for node in body)
    code = any(
        isinstance(node, (ast.ClassDef, ast.FunctionDef)) for node in body)
    if not (inherits or {'model', '_base_'} & names) and (code or not names):
        sys.exit(
            f'{path} is Python code and no config, which has settings such as '
            'model = dict(…). Name a config; a network in Python is searched '
            'from Python: from dms_razor import Search '
            '(docs/en/plain_python.md)')


def make_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that OpenMMLab's tools have in common."""
    parser = config_parser(description, 'config file path')
    parser.add_argument(
        '--work-dir', '--work_dir', help='folder for logs, models and results')
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
    cfg = read_config(args)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'./work_dirs/{Path(args.config).stem}'
    default_model_wrapper(cfg)
    guard_subnet(cfg)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """The runner that a config names, or mmengine's own."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def guard_subnet(cfg: Config) -> None:
    """Let a subnet's config refuse checkpoints of other networks."""
    kind = cfg.get('model', {}).get('type', '')
    if getattr(kind, '__name__',
               kind).split('.')[-1] in ('DMSSubModel', 'DMSDistill'):
        cfg.custom_hooks = list(cfg.get('custom_hooks') or []) + [
            dict(type='mmengine.SubnetCheckpointHook')
        ]
