# Copyright (c) dms_razor contributors. All rights reserved.
"""Metrics that are counted on demand, searched under."""
import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train


def test_bytes_of_the_parameters():
    space = make_search(plain_net()).space
    numbers = sum(p.numel() for p in plain_net().parameters())
    for name, size in dict(fp32=4, fp16=2, int8=1).items():
        assert space.resource.supernet(f'weights_{name}') == size * numbers
    assert 'weights_fp16' not in space.resource.metrics


def test_memory_beside_another_budget(tmp_path):
    net = plain_net()
    search = make_search(net, constraints=dict(memory=.5, weights_int8='60%'))
    text = search.preflight().text()
    assert 'memory' in text and 'weights_int8' in text
    assert 'weights_fp16' not in text
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 30)
    export = search.export(tmp_path / 'subnet', picture=False)
    costs = export.manifest.others
    assert set(costs) == {'memory', 'weights_int8'}
    for name, share in dict(memory=.5, weights_int8=.6).items():
        assert costs[name]['searched'] <= share * costs[name]['supernet']
    assert max(
        costs['memory']['searched'] / costs['memory']['supernet'] / .5,
        export.manifest.params['counted'] /
        export.manifest.params['supernet'] / .6) > .95
    assert 'bytes of activations at the peak' in export.report.to_markdown()


def test_the_gradient_of_a_peak_is_that_of_its_moment():
    """Against finite differences, away from where moments change places."""
    search = make_search(plain_net(), metric='memory', target=.6)
    counts = search.bank.counts().clone() - torch.linspace(
        .3, 2.9, search.bank.layout.U).double()
    masks = search.bank.resource_masks()
    counts.requires_grad_()
    value = search.resource(counts, masks, 'memory')
    slope, = torch.autograd.grad(value, counts)
    for unit, step in enumerate(1e-4 * torch.eye(len(counts)).double()):
        up, down = (
            float(
                search.resource(counts.detach() + s * step, masks, 'memory'))
            for s in (1, -1))
        assert float(slope[unit]) == pytest.approx(
            (up - down) / 2e-4, abs=1e-3)
