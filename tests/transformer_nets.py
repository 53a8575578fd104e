# Copyright (c) dms_razor contributors. All rights reserved.
"""Transformers for tests, and what a traced space of theirs has to satisfy."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import torch
from mmpretrain.models import ConvNeXt, SwinTransformer, VisionTransformer

from dms_razor.masking import attach, unmask
from dms_razor.subnet import count_macs
from dms_razor.subnet.slicing import slice_model
from tools.zoo.check import Pooled, randomise

DEIT_S = dict(
    embed_dims=384, num_layers=16, num_heads=6, feedforward_channels=1536)
BACKBONES = {
    'DeiT-T':
    (lambda: VisionTransformer('deit-tiny', img_size=64, patch_size=16), 64),
    'DeiT-S-16':
    (lambda: VisionTransformer(DEIT_S, img_size=64, patch_size=16), 64),
    'Swin-T':
    (lambda: SwinTransformer('tiny', img_size=64, window_size=2), 64),
    'ConvNeXt-T': (lambda: ConvNeXt('tiny'), 64),
}


def build(name):
    """A network with random numbers everywhere, and an image for it."""
    make, side = BACKBONES[name]
    image = torch.randn(1, 3, side, side)
    return randomise(Pooled(make(), image)).eval(), image


def tiny_vit(**kwargs):
    """A ViT of two blocks, float64, smooth: GELU and LayerNorm."""
    arch = dict(
        embed_dims=12, num_layers=2, num_heads=3, feedforward_channels=16)
    image = torch.randn(2, 3, 16, 16).double()
    backbone = VisionTransformer(arch, img_size=16, patch_size=8, **kwargs)
    return randomise(Pooled(backbone.double(), image).double()).eval(), image


def masked(model, space, masks, image):
    """Outputs under masks ``[E]``; the model is plain afterwards."""
    attach(model, space, lambda: masks)
    try:
        return model(image)
    finally:
        unmask(model)


def assert_equal(model, space, keep, image, bound=1e-5):
    """Masked supernet, subnet, and the closed form agree on one subnet."""
    subnet = slice_model(model, space, keep).eval()
    with torch.no_grad():
        expected = masked(model, space, keep.to(image), image)
        found = subnet(image)
        other = subnet(-image.flip(-1))
    scale = expected.abs().max()
    assert (expected - found).abs().max() / scale < bound
    assert (found - other).abs().max() / scale > 1e-3, 'no response'
    counts = torch.tensor([
        int(keep[space.layout.slice_of(u)].sum()) // unit.groups
        for u, unit in enumerate(space.units)
    ])
    figures = [
        float(space.resource(counts, keep.double(), metric))
        for metric in ('macs', 'params')
    ]
    counted = count_macs(subnet, (image[:1], )).macs
    assert figures == [counted, sum(p.numel() for p in subnet.parameters())]


def keep_of(space, seed, least=1):
    """A random subnet with at least ``least`` elements of each width.

    A layer norm of one channel is constant, whatever the image.
    """
    generator = torch.Generator().manual_seed(seed)
    keep = torch.zeros(space.layout.E, dtype=torch.bool)
    for number, unit in enumerate(space.units):
        low = least if unit.kind == 'width' else unit.least
        low = max(1, min(low, unit.size))
        kept = torch.randint(low, unit.size + 1, (), generator=generator)
        ranks = torch.rand(unit.groups, unit.size, generator=generator)
        ranks = ranks.argsort(1).argsort(1)
        keep[space.layout.slice_of(number)] = (ranks < kept).reshape(-1)
    return keep


def kinds(space):
    """Kind -> (units, elements)."""
    found = {}
    for unit in space.units:
        units, elements = found.get(unit.kind, (0, 0))
        found[unit.kind] = (units + 1, elements + unit.elements)
    return found
