# Copyright (c) dms_razor contributors. All rights reserved.
"""Train whatever a config describes: a search, a subnet, a plain model."""
import logging
import sys

from _first_look import refuse_missing_data
from _launch import build_runner, load_config, make_parser
from mmengine.config import Config
from mmengine.logging import print_log

from dms_razor.openmmlab.whole_checkpoints import newest_readable


def switch_on_amp(cfg: Config) -> None:
    """Make the config's optimizer wrapper an ``AmpOptimWrapper``.

    A wrapper of an optimizer constructor of MMRazor's holds one wrapper per
    part of the model; the part that is trained is ``architecture``.

    Raises:
        ValueError: The config's wrapper cannot be switched, so that the
            flag would have no effect.
    """
    wrapper = cfg.get('optim_wrapper')
    if wrapper is not None and 'optimizer' not in wrapper:
        wrapper = wrapper.get('architecture')
    name = None if wrapper is None else wrapper.get('type', 'OptimWrapper')
    name = getattr(name, '__name__', name)
    if name is None or name.split('.')[-1] not in ('OptimWrapper',
                                                   'AmpOptimWrapper'):
        raise ValueError(
            f'--amp has no effect on this config: its optim_wrapper is '
            f'{name or cfg.get("optim_wrapper")}, not OptimWrapper. Drop the '
            'flag, or set up mixed precision in the config.')
    if name.split('.')[-1] == 'OptimWrapper':
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')


def switch_on_auto_scale_lr(cfg: Config) -> None:
    """Enable ``auto_scale_lr``, which needs the config's batch size.

    Raises:
        ValueError: The config says no ``base_batch_size``.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            '--auto-scale-lr has no effect on this config: it has no '
            'auto_scale_lr.base_batch_size. Drop the flag, or add '
            'auto_scale_lr=dict(base_batch_size=N).')
    cfg.auto_scale_lr.enable = True


def switch_on_resume(cfg: Config, checkpoint: str) -> None:
    """Go on from a checkpoint file, or for 'auto' from the newest readable.

    A first run under 'auto' has no checkpoint yet: it starts as without the
    flag, pretrained weights (``load_from``) included.
    """
    if checkpoint == 'auto':
        checkpoint = newest_readable(cfg.work_dir)
    if checkpoint is None:
        print_log(
            f'Nothing to resume in {cfg.work_dir}: starting anew.',
            logger='current',
            level=logging.WARNING)
        return
    cfg.resume = True
    cfg.load_from = checkpoint


def let_search_change(cfg: Config) -> None:
    """Let a search be resumed with other settings than it was begun with.

    Raises:
        ValueError: The config trains no search.
    """
    hooks = [
        hook for hook in cfg.get('custom_hooks') or []
        if str(hook.get('type')).split('.')[-1] == 'DMSHook'
    ]
    if not hooks:
        raise ValueError('--resume-with-changes has no effect on this config: '
                         'it has no DMSHook. Use --resume.')
    hooks[0]['resume_with_changes'] = True


def main() -> None:
    parser = make_parser('Train (or search) a model')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without a path, from the latest '
        'one in the work_dir')
    parser.add_argument(
        '--resume-with-changes',
        action='store_true',
        help='with --resume: let the search go on with another target, '
        'length, ... than it was begun with')
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size')
    args = parser.parse_args()
    cfg = load_config(args)
    if args.amp:
        switch_on_amp(cfg)
    if args.auto_scale_lr:
        switch_on_auto_scale_lr(cfg)
    if args.resume_with_changes:
        let_search_change(cfg)
        args.resume = args.resume or 'auto'
    if args.resume is not None:
        switch_on_resume(cfg, args.resume)
    try:
        refuse_missing_data(cfg)
    except FileNotFoundError as error:
        sys.exit(str(error))
    build_runner(cfg).train()


if __name__ == '__main__':
    main()
