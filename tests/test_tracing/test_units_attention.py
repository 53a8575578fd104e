# Copyright (c) dms_razor contributors. All rights reserved.
"""Units of attention layers on real transformers, all kinds at once."""
import pytest
import torch
from transformer_nets import assert_equal, build, keep_of, kinds, tiny_vit

from dms_razor.trace import trace


def test_deit_tiny_has_the_units_of_the_paper():
    model, image = build('DeiT-T')
    space = trace(model, image, check=False)
    units = {unit.name: unit for unit in space.units}
    embedding = units['backbone.patch_embed.projection']
    assert (embedding.kind, embedding.size) == ('width', 192)
    hidden = [u for n, u in units.items() if '.ffn.' in n]
    assert len(hidden) == 12 and {u.size for u in hidden} == {768}
    assert kinds(space) == dict(
        width=(13, 192 + 12 * 768),
        heads=(12, 12 * 3),
        qk=(12, 12 * 192),
        v=(12, 12 * 192),
        depth=(1, 12))
    for kind in ('qk', 'v'):
        unit = units[f'backbone.layers.0.attn.{kind}']
        assert (unit.size, unit.groups, unit.temperature) == (64, 3, 64)
    assert units['backbone.layers.0.attn.heads'].temperature == 12


@pytest.mark.parametrize('name, expected', [
    ('DeiT-T', dict(width=13, heads=12, qk=12, v=12, depth=1)),
    ('DeiT-S-16', dict(width=17, heads=16, qk=16, v=16, depth=1)),
    ('Swin-T', dict(width=16, heads=12, qk=12, v=12, depth=4)),
    ('ConvNeXt-T', dict(width=22, depth=4)),
])
def test_all_kinds_pruned_at_once(name, expected):
    model, image = build(name)
    space = trace(model, image)
    assert {kind: units for kind, (units, _) in kinds(space).items()} \
        == expected
    assert {item.reason for item in space.full_width} == \
        {'output of the network'}
    for seed in (1, 2):
        keep = keep_of(space, seed, 4)
        assert_equal(model, space, keep, image)


@pytest.mark.parametrize('kind', ['heads', 'qk', 'v', 'depth', 'width'])
def test_each_kind_can_be_switched_off_and_be_alone(kind):
    model, image = tiny_vit()
    every = {'width', 'heads', 'qk', 'v', 'depth'}
    space = trace(model, image, **{kind: False})
    assert set(kinds(space)) == every - {kind}
    keep = keep_of(space, 3, 4)
    assert_equal(model, space, keep, image)
    alone = trace(model, image, **{k: False for k in every - {kind}})
    assert set(kinds(alone)) == {kind}
    keep = keep_of(alone, 3, 4)
    assert_equal(model, alone, keep, image)


@pytest.mark.parametrize('kind', ['heads', 'qk', 'v', 'depth', 'width'])
def test_a_switch_is_a_bool(kind):
    """``--cfg-options model.mutator.qk=no`` is a text, which is true."""
    with pytest.raises(TypeError, match=f"{kind}='no' is neither True nor"):
        trace(*tiny_vit(), **{kind: 'no'})


def test_steps_of_each_kind():
    model, image = tiny_vit()
    steps = {
        '*.patch_embed.projection': dict(divisor=6),
        '*.ffn.layers.0.0': dict(divisor=8),
        '*.attn.qk': dict(divisor=2),
        '*.attn.v': dict(divisor=2, least=2),
    }
    space = trace(model, image, units=steps)
    units = {unit.name: unit for unit in space.units}
    assert (units['backbone.patch_embed.projection'].size,
            units['backbone.layers.0.attn.qk'].size) == (2, 2)
    assert units['backbone.layers.0.attn.v'].size == 2
    keep = keep_of(space, 5)
    assert_equal(model, space, keep, image)


@pytest.mark.parametrize('kind, options, reason', [
    ('heads', dict(divisor=2), '3 is no multiple of the step 2'),
    ('heads', dict(divisor=3), 'there is no choice'),
    ('heads', dict(fixed=True), 'declared fixed'),
    ('qk', dict(divisor=3), '4 is no multiple of the step 3'),
    ('v', dict(fixed=True), 'declared fixed'),
])
def test_attention_that_options_fix_is_named(kind, options, reason):
    model, image = tiny_vit()
    space = trace(model, image, units={f'*.0.attn.{kind}': options})
    names = {unit.name for unit in space.units}
    assert f'backbone.layers.0.attn.{kind}' not in names
    assert f'backbone.layers.1.attn.{kind}' in names
    found = [
        stay.reason for stay in space.full_width
        if stay.module == 'backbone.layers.0.attn'
    ]
    assert len(found) == 1 and found[0].startswith(f'its {kind}')
    assert reason in found[0]


@pytest.mark.parametrize('options', [
    dict(out_type='avg_featmap'),
    dict(layer_scale_init_value=.1),
    dict(with_cls_token=False, out_type='raw'),
    dict(qkv_bias=False),
    dict(pre_norm=True),
])
def test_variants_of_the_vision_transformer(options):
    model, image = tiny_vit(**options)
    space = trace(model, image)
    assert set(kinds(space)) == {'width', 'heads', 'qk', 'v', 'depth'}
    for seed in (1, 2):
        keep = keep_of(space, seed, 4)
        assert_equal(model, space, keep, image)


def test_a_table_of_positions_that_is_resized():
    """Another image side than the table's: the embedding stayed whole, with
    an IndexError as the reason."""
    model, image = tiny_vit()
    image = torch.randn(2, 3, 24, 24).to(image)
    space = trace(model, image)
    assert [item.module for item in space.full_width] == ['heads.0']
    sites = space.slice_sites['backbone.pos_embed']
    assert [site.axis for site in sites] == [2], 'positions all stay'
    for seed in (1, 2):
        keep = keep_of(space, seed, 4)
        assert_equal(model, space, keep, image)


class Own(torch.nn.Module):
    """Attention of one's own: no slim class, so heads alone go."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Linear(5, 12)
        self.q = torch.nn.Linear(12, 8)
        self.k = torch.nn.Linear(12, 8)
        self.v = torch.nn.Linear(12, 12)
        self.out = torch.nn.Linear(12, 7)

    def forward(self, x):
        x = self.stem(x)
        q, k, v = (
            layer(x).unflatten(-1, (4, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-2, -1) * 2**-.5).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).flatten(2))


def test_attention_of_a_class_of_ones_own():
    model, x = Own(), torch.randn(1, 6, 5)
    space = trace(model, x)
    assert kinds(space)['width'] == (1, 12)
    for seed in range(4):
        keep = keep_of(space, seed, 4)
        assert_equal(model, space, keep, x)


def test_choices_of_each_kind_and_their_errors():
    model, image = tiny_vit()
    choices = {
        '*.patch_embed.projection': dict(choices=[6, 12]),
        '*.attn.heads': dict(choices=[1, 3]),
        '*.attn.qk': dict(choices=[2, 4], divisor=2),
        'backbone.layers': dict(choices=[0, 2]),
    }
    space = trace(model, image, units=choices)
    allowed = {unit.name: unit.choices for unit in space.units}
    assert allowed['backbone.patch_embed.projection'] == (6, 12)
    assert allowed['backbone.layers.1.attn.heads'] == (1, 3)
    assert allowed['backbone.layers.1.attn.qk'] == (1, 2), 'elements of 2'
    assert allowed['backbone.layers'] == (0, 2)
    assert allowed['backbone.layers.1.attn.v'] is None
    for wrong in (dict(choices=[]), dict(choices='6'), dict(choices=[6, 13]),
                  dict(choices=[6, 7], divisor=2)):
        with pytest.raises(ValueError, match='choice'):
            trace(model, image, units={'*.patch_embed.projection': wrong})
