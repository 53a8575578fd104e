# Copyright (c) dms_razor contributors. All rights reserved.
"""Modules that no recording has called: what they may read stays.

A branch on size or batch, or a head that only another task runs, was not
taken: nobody has seen which channels it reads. It can read what the code of
the modules around it holds in its hands.
"""
from typing import Dict, Iterator, List, Set, Tuple

from torch import Tensor, nn

from ..space import FullWidth
from .blocks import ResidualBlock
from .labels import core


def fix_unseen(recorder) -> List[FullWidth]:
    """Fix what modules that were never called may read.

    Args:
        recorder (Recorder): A finished recording, maybe with a second one.

    Returns:
        list[FullWidth]: The outermost modules with parameters of which
        nothing was run.
    """
    modes = 'neither eval nor train mode ran it' if recorder.again else \
        'eval mode did not run it'
    stays = []
    for path in unseen(recorder):
        stays.append(
            FullWidth(
                path, f'{modes} with these inputs, so that what it '
                'reads is not known'))
        _fix_readable(recorder, path)
    return stays


def unseen(recorder) -> List[str]:
    """Outermost modules with parameters, none of which was ever read."""
    modules = recorder.modules
    seen: Set[str] = {''}
    for one in recorder.passes:
        for path in one.times:
            seen.update(_ancestors(path))
        for path, module in modules.items():
            own = module.parameters(recurse=False)
            if any(one.name_of(p) in one.touched for p in own):
                seen.update(_ancestors(path))
    found: List[str] = []
    for path, module in modules.items():
        if path not in seen and not any(
                path.startswith(f'{outer}.') for outer in found) and next(
                    module.parameters(), None) is not None:
            found.append(path)
    return found


def _ancestors(path: str) -> Iterator[str]:
    """A path and those of all modules around it, outermost first."""
    parts = path.split('.')
    return ('.'.join(parts[:n + 1]) for n in range(len(parts)))


def _fix_readable(recorder, path: str) -> None:
    """Fix what an unseen module may read, and what it may be added to.

    That is what has as many channels as it, or a part of it, takes or
    returns; if nothing has as many as it takes, all that it could be given.
    """
    parts = [_widths(part) for part in recorder.modules[path].modules()]
    takes, returns = (set().union(*ways) for ways in zip(*parts))
    around = {'', *_ancestors(path)} - {path}
    held = [
        labels for one in recorder.passes for labels in _in_hands(one, around)
    ]
    known = not takes or any(_fits(labels, takes) for labels in held)
    for labels in held:
        if not known or _fits(labels, takes | returns):
            recorder.variables.fix(labels,
                                   f'"{path}" was not run and may read them')


def _in_hands(recorder, around: Set[str]) -> Iterator[Tensor]:
    """Labels of all tensors that the code of these modules handles."""
    calls = {c.index: c for c in recorder.calls if c.path in around}
    nodes = [n.index for n in recorder.nodes if n.call in calls or n.call < 0]
    for call in recorder.calls:
        if call.index in calls:
            nodes += call.inputs
        elif call.parent in calls or call.parent < 0:
            nodes += call.outputs
    for index in dict.fromkeys(nodes):
        yield from recorder.nodes[index].labels


def _fits(labels: Tensor, widths: Set[int]) -> bool:
    """Whether the channels of a tensor are as many as one of these."""
    sizes = {n for n, one in zip(labels.shape, core(labels).shape) if one > 1}
    return not sizes.isdisjoint(widths) or \
        labels.shape[1:].numel() in widths


#: Attributes of standard layers: channels that they take, and return.
_CHANNELS = (
    (nn.modules.conv._ConvNd, 'in_channels', 'out_channels'),
    (nn.Linear, 'in_features', 'out_features'),
    (nn.Bilinear, 'in1_features in2_features', 'out_features'),
    ((nn.RNNBase, nn.RNNCellBase), 'input_size', 'hidden_size'),
    (nn.MultiheadAttention, 'embed_dim kdim vdim', 'embed_dim'),
    (nn.modules.batchnorm._NormBase, 'num_features', 'num_features'),
    (nn.GroupNorm, 'num_channels', 'num_channels'),
    ((nn.Embedding, nn.EmbeddingBag), '', 'embedding_dim'),
)


def _widths(module: nn.Module) -> Tuple[Set[int], Set[int]]:
    """Numbers of channels that a module itself takes, and returns."""
    for kind, *names in _CHANNELS:
        if isinstance(module, kind):
            takes, returns = ({
                getattr(module, name)
                for name in words.split()
            } for words in names)
            return takes, returns
    own = module.parameters(recurse=False)
    sizes = {size for parameter in own for size in parameter.shape}
    return sizes, sizes


def blocks_with(unseen_modules: List[FullWidth],
                blocks: List[ResidualBlock]) -> Dict[str, str]:
    """Path of each block that holds an unseen module -> the module."""
    return {
        block.path: stay.module
        for stay in unseen_modules
        for block in blocks if stay.module.startswith(
            tuple(f'{part.path}.' for part in block.stand_ins))
    }
