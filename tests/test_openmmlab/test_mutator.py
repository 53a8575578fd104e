# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import random

import pytest
import torch
from mmengine.model import BaseModel
from mmrazor.models.mutables import MutableChannelUnit
from mmrazor.models.mutators import ChannelMutator
from mmrazor.registry import MODELS
from torch import nn
from torch.nn import functional as F
from toy_models import classifier


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MODELS.build(classifier()).eval()


def prepare(model, **settings):
    mutator = MODELS.build(
        dict(
            dict(type='mmrazor.DMSMutator', input_shape=(3, 16, 16)),
            **settings))
    mutator.prepare_from_supernet(model)
    return mutator


def test_it_is_a_channel_mutator_with_depth(model):
    mutator = prepare(model)
    assert isinstance(mutator, ChannelMutator)
    # stem with layer1, inside two blocks; then 3 stages of 1 + 2 convs
    assert len(mutator.channel_units) == 12
    assert [unit.num_channels for unit in mutator.depth_units] == [2, 1, 1, 1]
    assert all(isinstance(u, MutableChannelUnit) for u in mutator.units)
    assert mutator.mutable_units == list(mutator.units)
    assert len(mutator.search_groups) == 16
    assert all(len(group) == 1 for group in mutator.search_groups.values())


class Supervised(BaseModel):
    """An auxiliary head that ``forward(mode='loss')`` alone runs."""

    def __init__(self):
        super().__init__()
        self.stem, self.more = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 3)
        self.head, self.aux = nn.Linear(12, 5), nn.Linear(16, 5)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.stem(inputs).relu()
        scores = self.head(self.more(x).relu().mean((2, 3)))
        if mode == 'tensor':
            return scores
        return dict(
            loss=F.cross_entropy(scores, data_samples),
            aux=F.cross_entropy(self.aux(x.mean((2, 3))), data_samples))


def test_losses_are_traced_where_they_are_given():
    images, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 3])
    mutator = MODELS.build(dict(type='mmrazor.DMSMutator'))
    search = mutator.prepare_from_supernet(
        Supervised(),
        images[:1],
        train_inputs=dict(inputs=images, data_samples=labels),
        train_forward=lambda model, **data: model(**data, mode='loss'))
    assert [unit.name for unit in mutator.units] == ['stem', 'more']
    assert 'aux.weight' in search.space.slice_sites
    assert 'proved on train_inputs' in search.preflight().training


def test_heads_of_the_loss_that_were_not_seen_keep_their_inputs():
    search = MODELS.build(
        dict(type='mmrazor.DMSMutator',
             input_shape=(3, 16, 16))).prepare_from_supernet(Supervised())
    assert [unit.name for unit in search.space.units] == ['more']
    assert {'stem', 'aux'} <= {s.module for s in search.space.full_width}


def test_choices_are_the_bank_and_nothing_else(model):
    mutator = prepare(model)
    full = mutator.choice_template
    assert full == mutator.sample_choices('max')
    assert full['backbone.layer4.0.conv1'] == 64
    assert full['backbone.layer1'] == 2
    for kind in ('random', 'min', 'max'):
        choices = mutator.sample_choices(kind)
        mutator.set_choices(choices)
        assert mutator.current_choices == choices
        kept = mutator.bank.hard()
        for unit in mutator.units:
            elements = mutator.bank.layout.slice_of(unit.index)
            assert int(kept[elements].sum()) == choices[unit.name]
    assert mutator.bank.mode == 'hard'


def test_layers_that_share_one_ratio():
    """A config's mutator ties layers as Search(layers='tied') does."""
    torch.manual_seed(0)
    arch = dict(
        embed_dims=12, num_layers=3, num_heads=3, feedforward_channels=16)
    model = MODELS.build(
        dict(
            type='mmpretrain.VisionTransformer',
            arch=arch,
            img_size=16,
            patch_size=8))
    mutator = prepare(model, layers='tied')
    assert [unit.name for unit in mutator.units if '.*.' in unit.name] == [
        f'layers.*.{part}'
        for part in ('ffn.layers.0.0', 'attn.heads', 'attn.qk', 'attn.v')
    ]
    mutator.set_choices({'layers.*.ffn.layers.0.0': 3 * 5})
    place, = (unit.index for unit in mutator.units if 'ffn' in unit.name)
    kept = mutator.bank.masks[mutator.space.layout.slice_of(place)] > .5
    assert kept.view(3, 16).sum(1).tolist() == [5, 5, 5]
    assert mutator.config_template()['layers'] == 'tied'


def test_a_subnet_computes_without_what_is_not_chosen(model):
    """Removed channels: as if their filters were zero."""
    mutator = prepare(model, depth=False)
    zeroed = copy.deepcopy(model)
    from dms_razor.masking import unmask
    unmask(zeroed)
    name = 'backbone.layer2.0.conv1'
    mutator.set_choices({name: 5})
    unit = mutator._name2unit[name]
    keep = mutator.bank.hard()[mutator.bank.layout.slice_of(unit.index)]
    zeroed.backbone.layer2[0].conv2.weight.data[:, ~keep] = 0
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), zeroed(images))


def test_resource_of_choices_leaves_the_bank_alone(model):
    mutator = prepare(model)
    choices = mutator.sample_choices('min')
    assert mutator.resource_of(choices) == mutator.space.resource.minimum()
    assert mutator.resource_of({}) == mutator.space.resource.supernet()
    assert mutator.current_choices == mutator.sample_choices('max')


def test_evolution_needs_no_second_truth(model):
    """Mutate and cross choices under a budget; score by the network."""
    random.seed(0)
    mutator = prepare(model)
    images = torch.randn(4, 3, 16, 16)
    budget = .5 * mutator.space.resource.supernet()
    with torch.no_grad():
        teacher = model(images)

    def score(choices):
        mutator.set_choices(choices)
        with torch.no_grad():
            return -(model(images) - teacher).abs().sum().item()

    population = []
    while len(population) < 6:
        choices = mutator.sample_choices()
        if mutator.resource_of(choices) <= budget:
            population.append((score(choices), choices))
    first = max(s for s, _ in population)
    for _ in range(60):
        parent = max(population, key=lambda one: one[0])[1]
        child = {
            name: other if random.random() < .1 else mine
            for (name, mine), other in zip(parent.items(),
                                           mutator.sample_choices().values())
        }
        if mutator.resource_of(child) <= budget:
            population.append((score(child), child))
    best, choices = max(population, key=lambda one: one[0])
    assert best > first
    mutator.set_choices(choices)
    assert score(mutator.current_choices) == best


@pytest.mark.parametrize('choices, error, message', [
    ({
        'backbone.layer9': 1
    }, KeyError, 'layer9'),
    ({
        'backbone.layer1': 3
    }, ValueError, 'from 0 to 2'),
    ({
        'backbone.layer2.0.conv1': 0
    }, ValueError, 'from 1 to 16'),
])
def test_impossible_choices(model, choices, error, message):
    mutator = prepare(model)
    before = mutator.current_choices
    with pytest.raises(error, match=message):
        mutator.set_choices(choices)
    assert mutator.current_choices == before
    with pytest.raises(ValueError, match='greedy'):
        mutator.sample_choices('greedy')


def test_config_template_builds_the_same_choices(model):
    mutator = prepare(model, units={'backbone.layer3.*': dict(divisor=4)})
    random.seed(1)
    mutator.set_choices(mutator.sample_choices())
    template = mutator.config_template()
    again = MODELS.build(template)
    again.prepare_from_supernet(MODELS.build(classifier()))
    assert again.current_choices == mutator.current_choices
    assert again.config_template() == template
    units = mutator.config_template(
        with_unit_init_args=True, with_channels=True)
    unit = units['channel_unit_cfg']['units']['backbone.layer3.0.conv1']
    assert unit['init_args']['divisor'] == 4
    related = unit['channels']
    assert related['output_related'][0] == dict(
        name='backbone.layer3.0.conv1',
        start=0,
        end=32,
        is_output_channel=True)
    assert related['input_related'] == [
        dict(
            name='backbone.layer3.0.conv2',
            start=0,
            end=32,
            is_output_channel=False)
    ]


def test_nothing_is_added_to_the_state_dict(model):
    keys = list(model.state_dict())
    mutator = prepare(model)
    assert not mutator.state_dict() and list(model.state_dict()) == keys
    assert not list(mutator.parameters())


def test_bad_input(model):
    with pytest.raises(ValueError, match='input_shape'):
        prepare(model, input_shape=None)
    with pytest.raises(ValueError, match='neck.conv'):
        prepare(model, units={'neck.conv*': dict(fixed=True)})
    with pytest.raises(ValueError, match='(?i)nothing'):
        prepare(model, width=False, depth=False)
