# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import importlib.util
import json
import os

import pytest
import torch
from torch import nn

from dms_razor.core.resource import METRICS, Cost, Metric, ResourceModel
from dms_razor.openmmlab.retrain import RetrainConfig
from dms_razor.subnet import (Count, Manifest, SubnetError, build_subnet,
                              count_macs, export_subnet)
from dms_razor.subnet.export import FILES
from .helpers import images, net, some_keep, space


@pytest.fixture
def export(tmp_path):
    return export_subnet(
        tmp_path / 'subnet', net(), space(), some_keep(), target=50000)


def with_costs(change):
    """The space with other costs than the network's."""
    odd = space()
    costs = [change(cost) for cost in odd.resource.costs]
    odd.resource = ResourceModel(odd.resource.axes, costs, odd.layout)
    return odd


def test_files(export, tmp_path):
    assert sorted(os.listdir(export.path)) == sorted(
        set(FILES) - {'retrain.py', 'base.py', 'latency.png'})
    assert os.listdir(tmp_path) == ['subnet']
    assert Manifest.load(export.path) == export.manifest
    state = torch.load(export.path / 'subnet.pth', weights_only=True)
    for name, tensor in export.model.state_dict().items():
        assert torch.equal(state[name], tensor)


def test_searched_and_counted_are_one_number(export):
    manifest = export.manifest
    model = export.model
    assert manifest.macs['counted'] == count_macs(model, images(1)).macs
    assert manifest.macs['searched'] == manifest.macs['counted']
    assert manifest.params['counted'] == sum(p.numel()
                                             for p in model.parameters())
    assert manifest.params['searched'] == manifest.params['counted']
    assert manifest.macs['supernet'] == count_macs(net(), images(1)).macs
    assert manifest.params['supernet'] == sum(p.numel()
                                              for p in net().parameters())


def test_empty_stage_and_everything(tmp_path):
    for keep in (some_keep(removed=(0, 1)), torch.ones(46).bool()):
        done = export_subnet(tmp_path / 'x', net(), space(), keep)
        assert done.manifest.macs['counted'] == done.manifest.macs['searched']
    assert done.manifest.removed == []
    assert done.manifest.macs['counted'] == done.manifest.macs['supernet']


def test_two_exports_are_the_same(export, tmp_path):
    again = export_subnet(
        tmp_path / 'again', net(), space(), some_keep(), target=50000)
    for name in ('subnet.json', 'report.json', 'report.md'):
        assert (export.path / name).read_bytes() == (again.path /
                                                     name).read_bytes()


@pytest.mark.parametrize('metric, name, message', [
    ('macs', 'expand', "torch.utils.flop_counter counts [0-9,]+ macs, but the "
     r'search reckons with [0-9,]+: expand has 6,144 and should have 12,288'),
    ('params', 'scale', 'The network counts 2,382 params, but the search '
     'reckons with 2,390: scale has 8 and should have 16. The budget'),
])
def test_a_wrong_closed_form_stops_the_export(tmp_path, metric, name, message):

    def double(cost):
        if (cost.metric, cost.name) == (metric, name):
            return Cost(cost.name, cost.op, cost.metric, 2 * cost.coef,
                        cost.axes, cost.blocks)
        return cost

    with pytest.raises(SubnetError, match=message):
        export_subnet(tmp_path / 'subnet', net(), with_costs(double),
                      some_keep())
    assert os.listdir(tmp_path) == []


def test_a_closed_form_that_is_right_for_the_supernet_alone(tmp_path):

    def constant(cost):
        if (cost.metric, cost.name) == ('macs', 'expand'):
            return Cost(cost.name, cost.op, cost.metric, 6144.)
        return cost

    with pytest.raises(
            SubnetError, match='expand has 1,152 and should have 6,144'):
        export_subnet(tmp_path / 'subnet', net(), with_costs(constant),
                      some_keep())
    assert os.listdir(tmp_path) == []


def test_a_forgotten_layer_is_named(tmp_path):
    odd = space()
    costs = [c for c in odd.resource.costs if c.name != 'last']
    odd.resource = ResourceModel(odd.resource.axes, costs, odd.layout)
    with pytest.raises(SubnetError, match='last has 2,048 and should have 0'):
        export_subnet(tmp_path / 'subnet', net(), odd, some_keep())


def test_nothing_is_left_after_an_error(tmp_path, monkeypatch):
    export_subnet(tmp_path / 'subnet', net(), space(), some_keep())
    before = (tmp_path / 'subnet' / 'subnet.json').read_bytes()

    def full(model, path):
        path.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr('dms_razor.subnet.export.save_weights', full)
    with pytest.raises(OSError, match='disk full'):
        export_subnet(tmp_path / 'subnet', net(), space(), some_keep((0, )))
    assert os.listdir(tmp_path) == ['subnet']
    assert (tmp_path / 'subnet' / 'subnet.json').read_bytes() == before


def test_what_the_report_must_say(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *rest: None
        if name == 'matplotlib' else find(name, *rest))
    done = export_subnet(
        tmp_path / 'subnet', net(), space(), some_keep(), target=10000)
    assert 'structure.png' not in os.listdir(done.path)
    text = (done.path / 'report.md').read_text('utf-8')
    assert 'matplotlib is not installed' in text
    assert 'above what was asked: 14,464 instead of at most 10,000 macs' \
        in text
    report = json.loads((done.path / 'report.json').read_text())
    assert len(report['notes']) == 3


def test_retrain_text_comes_first(tmp_path):
    """A config that cannot be written stops the export before any work."""
    retrain = RetrainConfig('mmpretrain::resnet/nothing.py', dict(type='x'))
    model = net()
    del model.stem  # would fail later
    with pytest.raises(
            SubnetError, match="config 'mmpretrain::resnet/nothing"):
        export_subnet(
            tmp_path / 'subnet', model, space(), some_keep(), retrain=retrain)


def test_custom_call_and_inputs(tmp_path):

    class Wrapped(nn.Module):

        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            raise RuntimeError('is not called')

    def forward(model, x):
        return model.net(x)

    odd = space()
    for sites in odd.slice_sites.values():
        sites[:] = [
            type(s)(f'net.{s.name}', s.axis, s.index, s.groups) for s in sites
        ]
    odd.slice_sites = {f'net.{k}': v for k, v in odd.slice_sites.items()}
    odd.attributes = {f'net.{k}': v for k, v in odd.attributes.items()}
    odd.blocks = [
        type(b)(f'net.{b.path}', b.element, b.tails) for b in odd.blocks
    ]
    model = Wrapped()
    before = copy.deepcopy(model.state_dict())
    done = export_subnet(
        tmp_path / 'subnet',
        model,
        odd,
        some_keep(),
        forward=forward,
        inputs=images(1))
    assert done.manifest.macs['counted'] == 14464
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.fixture
def metrics():
    """Two metrics from outside: one that is counted, one that is not."""
    METRICS.register('kept_first')(
        Metric(
            'kept_first',
            'channels of the stem',
            value=lambda layout, counts, masks: counts[..., 0] * 1.,
            count=lambda model, *_: Count(model.stem.out_channels),
            per_sample=False))
    METRICS.register('heat')(
        Metric(
            'heat',
            'heat',
            value=lambda layout, counts, masks: counts.sum(-1) / 8))
    yield
    del METRICS['kept_first'], METRICS['heat']


def test_metrics_from_outside_have_a_place_of_their_own(
        export, tmp_path, metrics):
    """Without them nothing of the files changes."""
    done = export_subnet(
        tmp_path / 'more', net(), space(), some_keep(), target=50000)
    whole = sum(unit.size for unit in space().units)
    kept = sum(unit['kept'] for unit in done.manifest.units)
    others = dict(
        kept_first=dict(supernet=8, searched=3, counted=3),
        heat=dict(supernet=whole / 8, searched=kept / 8))
    assert done.manifest.others == others
    assert Manifest.load(done.path) == done.manifest
    for name in ('subnet.json', 'report.json'):
        before, after = (
            json.loads((folder / name).read_text())
            for folder in (export.path, done.path))
        assert after.pop('others') == others and 'others' not in before
        for content in (before, after):
            content.pop('checksum', None)
        assert list(before.items()) == list(after.items())
    text = (done.path / 'report.md').read_text('utf-8')
    assert '| channels of the stem | 8 | - | 3 | 3 | 37.50% |' in text
    assert f'| heat | {whole / 8:,.4g} | - | {kept / 8:,.4g} | - |' in text
    assert build_subnet(net(), done.path).stem.out_channels == 3


def test_a_target_in_a_metric_from_outside(tmp_path, metrics):
    done = export_subnet(
        tmp_path / 'more',
        net(),
        space(),
        some_keep(),
        metric='heat',
        target=1.)
    assert done.report.to_dict()['asked']['fraction'] == 1 / (
        done.manifest.others['heat']['supernet'])
    assert 'at most 1 heat' in done.report.notes[0]


def test_an_unknown_metric_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match='"mac" is not known.*"macs"'):
        export_subnet(tmp_path / 'x', None, None, None, metric='mac')
