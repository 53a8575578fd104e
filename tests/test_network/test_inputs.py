# Copyright (c) dms_razor contributors. All rights reserved.
"""Example inputs as people write them, from the trace to the rebuilt net."""
import json
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from dms_razor import Search
from dms_razor.network import (describe_inputs, make_inputs, map_tensors,
                               to_device_of)
from dms_razor.subnet import SubnetError, build_subnet


def test_inputs_survive_a_manifest():
    inputs = (torch.rand(2, 3), dict(ids=torch.tensor([[1, 2]]), n=4), None)
    description = describe_inputs(inputs)
    assert description == [
        dict(shape=[2, 3], dtype='float32'),
        dict(
            named=dict(ids=dict(shape=[1, 2], dtype='int64'), n=dict(
                value=4))),
        dict(value=None)
    ]
    first, second, third = make_inputs(description, nn.Linear(1, 1))
    assert torch.equal(first, torch.zeros(2, 3)) and third is None
    assert second['ids'].dtype == torch.int64 and second['n'] == 4
    with pytest.raises(SubnetError, match='hold a set, which a manifest'):
        describe_inputs([{1}])


def test_inputs_go_where_the_network_is():
    model = nn.Linear(2, 2, device='meta')
    x, rest = to_device_of(model, [torch.ones(1), dict(y=torch.ones(1), n=1)])
    assert x.device.type == rest['y'].device.type == 'meta'
    assert rest['n'] == 1
    made = make_inputs(dict(shape=[1], dtype='float32'), model)
    assert made.device.type == 'meta'


class Encoding(UserDict):
    """Like BatchEncoding of transformers: entries are attributes too."""

    def __getattr__(self, name):
        try:
            return self.__dict__['data'][name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Batch:
    """A data class that cannot be changed."""
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    name: str = 'a batch'


Pair = namedtuple('Pair', 'input_ids attention_mask')
IDS, MASK = torch.arange(6)[None] * 3, torch.ones(1, 6)


class Words(nn.Module):
    """Called by name, as the networks of transformers are."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 12)
        self.hidden, self.out = nn.Linear(12, 16), nn.Linear(16, 2)

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        x = self.words(input_ids) * attention_mask.unsqueeze(-1)
        x = self.out(torch.relu(self.hidden(x.mean(1))))
        return SimpleNamespace(logits=x, loss=None)


class OneThing(Words):
    """Takes one object with attributes."""

    def forward(self, batch):
        return super().forward(batch.input_ids, batch.attention_mask)


def sample():
    return BaseDataElement(
        metainfo=dict(img_shape=(3, 4), scale=np.ones(2), name='x'),
        input_ids=IDS,
        attention_mask=MASK)


BY_NAME = dict(input_ids=IDS, attention_mask=MASK)
WAYS = dict(
    keywords=(Words, BY_NAME, None),
    encoding=(Words, Encoding(BY_NAME), None),
    forward=(
        Words, BY_NAME,
        lambda net, input_ids, attention_mask: net(input_ids, attention_mask)),
    arguments=(Words, [IDS, MASK], None),
    mapping=(Words, (BY_NAME, ), lambda net, batch: net(**batch)),
    nested=(Words, ([IDS, (MASK, )], ), lambda net, x: net(x[0], x[1][0])),
    attributes=(OneThing, (Encoding(BY_NAME), ), None),
    data_class=(OneThing, Batch(IDS, MASK), None),
    named_tuple=(OneThing, Pair(IDS, MASK), None),
    data_sample=(OneThing, sample(), None))


@pytest.mark.parametrize('way', WAYS)
def test_every_way_to_call_a_network(way, tmp_path):
    """Traced, searched, exported and built again, with the MACs by hand."""
    kind, inputs, forward = WAYS[way]
    search = Search(kind(), inputs, '60%', forward=forward, total_steps=5)
    assert search.preflight().supernet['macs'] == 12 * 16 + 16 * 2
    width = [u.size for u in search.space.units]
    assert sorted(width) == [12, 16] and search.space.input_shape == (1, 6)
    export = search.export(tmp_path / 'subnet', picture=False)
    json.loads((tmp_path / 'subnet' / 'subnet.json').read_text())
    built = build_subnet(
        kind(),
        tmp_path / 'subnet' / 'subnet.json',
        tmp_path / 'subnet' / 'subnet.pth',
        forward=forward)
    assert torch.equal(built.out.weight, export.model.out.weight)


@pytest.mark.parametrize('thing', [object(), {1, 2}, torch.float32])
def test_other_objects_are_refused_by_name_before_the_search(thing):
    with pytest.raises(SubnetError, match=f'hold a {type(thing).__name__},'):
        Search(Words(), (IDS, MASK, thing), '60%', total_steps=5)


def test_map_tensors_keeps_types_and_originals():
    inputs = (Encoding(x=torch.ones(2)), Batch(torch.ones(1), torch.ones(3)),
              sample(), [Pair(torch.ones(1),
                              None)], 'word', OrderedDict(y=torch.ones(1)),
              pack_sequence([torch.ones(2, 3),
                             torch.ones(1, 3)]))
    doubled = map_tensors(lambda x: x * 2, inputs)
    for a, b in zip(inputs, doubled):
        assert type(a) is type(b)
    assert float(doubled[0].x[0]) == 2 == float(doubled[1].input_ids)
    assert torch.equal(doubled[2].input_ids, 2 * IDS)
    assert doubled[2].metainfo['name'] == 'x' and doubled[1].name == 'a batch'
    assert float(doubled[3][0].input_ids) == 2 == float(doubled[5]['y'])
    assert doubled[6].data.unique().tolist() == [2]
    assert torch.equal(doubled[6].batch_sizes, inputs[6].batch_sizes)
    assert float(inputs[0].x[0]) == 1 == float(inputs[1].input_ids)
    assert torch.equal(inputs[2].input_ids, IDS)


def test_objects_survive_a_manifest():
    description = json.loads(
        json.dumps(
            describe_inputs((Batch(IDS, MASK), sample(), Encoding(BY_NAME),
                             Pair(IDS, 1.5), np.ones((2, 3), np.float32)))))
    batch, data, encoding, pair, array = make_inputs(description,
                                                     nn.Linear(1, 1))
    assert batch.input_ids.shape == (1, 6) and batch.name == 'a batch'
    assert data.input_ids.dtype == torch.int64
    assert data.metainfo['img_shape'] == (3, 4)
    assert isinstance(encoding,
                      Encoding) and encoding.input_ids.shape == (1, 6)
    assert pair.attention_mask == 1.5 and array.shape == (2, 3)


def test_a_class_that_is_not_imported():
    """A manifest is data: it imports nothing."""
    description = dict(named={}, type='antigravity:Flight')
    with pytest.raises(SubnetError, match='Flight of antigravity, which is'):
        make_inputs(description, nn.Linear(1, 1))
    with pytest.raises(SubnetError, match='is not imported'):
        make_inputs(dict(named={}, type='os:system'), nn.Linear(1, 1))
