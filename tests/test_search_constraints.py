# Copyright (c) dms_razor contributors. All rights reserved.
"""A search under several budgets, in Python and in a config."""
import json

import pytest
import torch
from mmengine.config import Config
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.counting import count_macs, count_params
from dms_razor.openmmlab.from_config import preflight_of_config
from dms_razor.preflight import PreflightError
from dms_razor.subnet import Manifest


@pytest.mark.parametrize('macs, params, binds, weight',
                         [(.6, .5, 'params', 'auto'), (.4, .7, 'macs', 1.)])
def test_neither_is_exceeded(macs, params, binds, weight, tmp_path):
    net = plain_net()
    whole = dict(
        macs=count_macs(net, torch.zeros(1, 3, 8, 8)).total,
        params=count_params(net))
    search = make_search(
        net,
        constraints=dict(macs=macs, params=params),
        width_only_steps=5,
        loss_weight=weight)
    report = search.preflight()
    assert set(report.supernet) == {'macs', 'params', 'macs and params'}
    target, = (
        line for line in report.text().splitlines()
        if line.strip().startswith('target') and 'binds' in line[-5:])
    assert f' {binds} (' in target
    found = json.loads(report.to_json())
    assert found['macs']['target'] == pytest.approx(macs * whole['macs'])
    assert found['params']['target'] == pytest.approx(params * whole['params'])
    assert 'macs and params' not in found

    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 20)
    assert search.at_target
    if weight == 'auto':
        shares = search.limits.shares(search.bank.counts(),
                                      search.bank.resource_masks())
        assert max(shares.values()) == pytest.approx(1, rel=1e-4)
        assert max(shares, key=shares.get) == binds
    train(search, optimizer, plain_data(), 15)
    assert search.bank.depth_frozen and 'macs and params' in repr(search)

    export = search.export(tmp_path / 'subnet', picture=False)
    counted = dict(
        macs=count_macs(export.model, torch.zeros(1, 3, 8, 8)).total,
        params=count_params(export.model))
    assert counted['macs'] <= macs * whole['macs']
    assert counted['params'] <= params * whole['params']
    assert counted[binds] >= .95 * dict(
        macs=macs, params=params)[binds] * whole[binds]
    manifest = Manifest.load(tmp_path / 'subnet')
    assert manifest.metric == binds
    assert manifest.limits == pytest.approx(
        dict(macs=macs * whole['macs'], params=params * whole['params']))
    text = export.report.to_markdown()
    for limit in manifest.limits.values():
        assert f'at most {limit:,.0f}' in text


def test_larger_limits_for_one_export(tmp_path):
    search = make_search(plain_net(), constraints=dict(macs=.4, params=.5))
    export = search.export(tmp_path / 'subnet', '80%', picture=False)
    whole = {m: search.resource.supernet(m) for m in ('macs', 'params')}
    assert export.manifest.limits == pytest.approx(
        dict(macs=.8 * whole['macs'], params=whole['params']))
    assert .75 < export.manifest.macs['counted'] / whole['macs'] <= .8


@pytest.mark.parametrize('constraints, message', [
    (dict(macs='60%', params='0.1%'),
     "params target .* cannot be reached.*together with macs '60%'"),
    (dict(macs='lots', params=.5), "'lots' cannot be read.*with params 0.5"),
    (dict(macs=.5, params=2e9), 'above the supernet.*with macs 0.5'),
])
def test_an_impossible_pair_is_refused_and_both_are_named(
        constraints, message):
    with pytest.raises(PreflightError, match=message) as caught:
        make_search(plain_net(), constraints=constraints)
    assert 'reachable' in caught.value.report.text()


def test_constraints_stand_alone():
    for other in (dict(metric='params'), dict(target='40%')):
        with pytest.raises(ValueError, match='no effect beside constraints='):
            make_search(plain_net(), constraints=dict(macs=.5), **other)
    with pytest.raises(ValueError, match='no costs in "speed"'):
        make_search(plain_net(), constraints=dict(macs=.5, speed=.5))
    with pytest.raises(ValueError, match='needs a target.*or constraints'):
        make_search(plain_net(), target=None, constraints={})


def test_in_a_config(tiny_config):
    cfg = Config.fromfile(tiny_config)
    cfg.model = dict(
        type='mmrazor.DMS',
        architecture=cfg.model,
        constraints=dict(macs='50%', params='40%'),
        input_shape=(1, 1, 8, 8))
    report = preflight_of_config(cfg)
    assert report.problem is None
    assert report.limits.amounts['params'] == pytest.approx(
        .4 * report.supernet['params'])
    cfg.model.constraints = dict(macs='50%', params='0.1%')
    assert "with macs '50%'" in preflight_of_config(cfg).problem
