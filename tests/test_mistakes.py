# Copyright (c) dms_razor contributors. All rights reserved.
"""Plausible mistakes: one message each, with the thing and the remedy.

Each line is a mistake, what the message names, and what it advises.
"""
import re

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from toy_nets import plain_net

from dms_razor import Search
from dms_razor.subnet import build_subnet, write_portable
from dms_razor.trace import trace


class Small(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3),
            nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


IMAGES = torch.zeros(1, 3, 6, 6)


def begin(**settings):
    """A search of the small network with some settings."""
    given = dict(model=Small(), example_inputs=IMAGES, total_steps=20)
    return Search(**{**given, **settings})


def units(**options):
    return begin(units={'body.0': options})


def packed(in_buffer):
    """The small network with whole numbers for weights: of bitsandbytes a
    parameter, of GPTQ and AWQ a buffer."""
    net, numbers = Small(), torch.zeros(16, 1, dtype=torch.uint8)
    if in_buffer:
        net.head.register_buffer('qweight', numbers.int())
    else:
        net.head.weight = nn.Parameter(numbers, requires_grad=False)
    return net


#: The search of the second table; it is not changed by a mistake.
SEARCH = begin()

#: name -> (the mistake, what is named, what is advised)
BEFORE = {
    'share without %': (lambda: begin(target='50'), 'target 50 cannot',
                        'a share is written "50%"'),
    'share as a number': (lambda: begin(target=50), 'target 50 cannot',
                          'a share is written "50%"'),
    'more than all': (lambda: begin(target='200%'), "target '200%'",
                      'lower the target'),
    'too little': (lambda: begin(target='0.01%'), 'cannot be reached',
                   'raise the target'),
    'a word': (lambda: begin(target='half'), "'half'", 'write a fraction'),
    'negative': (lambda: begin(target=-1), '-1', 'write a fraction'),
    'no target': (lambda: begin(target=None), 'target', '"50%"'),
    'unknown metric': (lambda: begin(metric='speed'), '"speed"',
                       'use one of macs, params'),
    'metric in other letters': (lambda: begin(metric='MACs'), '"MACs"',
                                'did you mean "macs"'),
    'FLOPs': (lambda: begin(metric='flops'), 'weights_int8', 'MACs: "macs"'),
    'an empty batch': (lambda: begin(example_inputs=IMAGES[:0]),
                       'empty, of shape (0, 3, 6, 6)', 'images[:1]'),
    'a batch with labels':
    (lambda: begin(example_inputs=(IMAGES, torch.zeros(1))), '2 arguments',
     'give what the forward takes alone, images[:1]'),
    'another precision': (lambda: begin(example_inputs=IMAGES.double()),
                          'torch.float64', 'images[:1].to(torch.float32)'),
    'bytes for floats': (lambda: begin(example_inputs=IMAGES.byte()),
                         'torch.uint8', 'images[:1].to(torch.float32)'),
    'a divisor of nothing':
    (lambda: begin(units={'*': dict(divisor=7)}), 'no multiple of the step 7',
     'Give a divisor that divides them'),
    'a divisor of nothing without depth':
    (lambda: begin(units={'*': dict(divisor=7)}, depth=False),
     'no multiple of the step 7', 'Give a divisor that divides them'),
    'a divisor of no width beside blocks':
    (lambda: begin(model=plain_net(), units={'*': dict(divisor=7)}),
     '12 channels are no multiple of the step 7',
     'Give a divisor that divides them'),
    'a part without what is in it': (lambda: begin(only='body'), '"body"',
                                     "Write only='body.*'"),
    'misspelt argument': (lambda: begin(total_step=9), '"total_step"',
                          'did you mean "total_steps"'),
    'argument of another library': (lambda: begin(unit={}), '"unit"',
                                    'did you mean "units"'),
    'misspelt option': (lambda: units(divisr=4), '"divisr"',
                        'did you mean "divisor"'),
    'option that is no number': (lambda: units(least='4'), "least='4'",
                                 'positive whole number'),
    'option that is no dict': (lambda: begin(units={'body.0': 8}),
                               'units["body.0"]', 'give a dict'),
    'pattern of nothing': (lambda: begin(units={'stem': dict(fixed=True)}),
                           '"stem"', 'Correct the pattern'),
    'part of nothing': (lambda: begin(only='backbone.*'), "'backbone.*'",
                        'Correct the pattern'),
    'yes as a word': (lambda: begin(depth='no'), "depth='no'",
                      'neither True nor False'),
    'all switched off': (lambda: begin(width=False, depth=False),
                         'width, depth', 'switch one on'),
    'a class for a network': (lambda: begin(model=Small), 'type',
                              r'call it first, Small()'),
    'arguments exchanged': (lambda: Search(IMAGES, Small()), 'Tensor',
                            'takes an nn.Module'),
    'weights for a network': (lambda: begin(model=Small().state_dict()),
                              'OrderedDict', 'takes an nn.Module'),
    'no example': (lambda: Search(Small()), 'nothing to run it on',
                   'give example_inputs'),
    'a shape for an example': (lambda: begin(example_inputs=(3, 6, 6)),
                               'Small', 'torch.zeros(3, 6, 6)'),
    'an array for an example': (lambda: begin(example_inputs=IMAGES.numpy()),
                                'Small', 'torch.from_numpy'),
    'wrong channels': (lambda: begin(example_inputs=torch.zeros(1, 1, 6, 6)),
                       '(1, 1, 6, 6)', 'Give an example input'),
    'text as steps': (lambda: begin(total_steps='9'), "total_steps is '9'",
                      'whole number'),
    'no steps': (lambda: begin(total_steps=0), '0 steps', 'make total larger'),
    'only warm-up': (lambda: begin(warmup_steps=20), 'steps of warm-up',
                     'make total larger'),
    'text as lr': (lambda: begin(lr='fast'), "'fast'", 'it must lie in'),
    'negative lr': (lambda: begin(lr=-1.), '-1.0', 'it must lie in'),
    'fall above 1': (lambda: begin(fall=3), 'fall is 3', 'give at most 1'),
    'harden above 1': (lambda: begin(harden=2), 'harden is 2',
                       'give at most 1'),
    'decay of 1': (lambda: begin(decay=1.), 'decay', 'it must lie in [0, 1)'),
    'misspelt importance': (lambda: begin(importance='tailor'), '"tailor"',
                            'did you mean "taylor"'),
    'misspelt selector': (lambda: begin(selector='dm'), '"dm"',
                          'did you mean "dms"'),
    'lr beside a bank': (lambda: begin(bank=SEARCH.bank, lr=.1), 'lr=',
                         'leave out one of them'),
    'searched twice': (lambda: begin(model=SEARCH.model),
                       'already has the masks', r'close() that search first'),
    'compiled': (lambda: begin(model=torch.jit.script(Small())), 'scripted',
                 'search the network that it was made from'),
    'lazy': (lambda: begin(model=nn.Sequential(nn.LazyLinear(4))), 'lazy',
             'Run the network once'),
    'of 4 bits': (lambda: begin(model=packed(False)), '"head"',
                  'quantise what comes out'),
    'of 4 bits in a buffer': (lambda: begin(model=packed(True)), '"head"',
                              'quantise what comes out'),
    'misspelt argument of trace': (lambda: trace(Small(), IMAGES, widths=True),
                                   '"widths"', 'did you mean "width"'),
}
DURING = {
    'model for an optimizer': (lambda out: SEARCH.attach(SEARCH.model),
                               'Small', r'call search.step() yourself'),
    'loss as a number': (lambda out: SEARCH.loss(.5), '0.5, a float',
                         'without .item()'),
    'unknown masks': (lambda out: SEARCH.masks('hrd').__enter__(), '"hrd"',
                      'use one of soft, hard'),
    'path for a writer': (lambda out: SEARCH.log_to('runs'), 'str',
                          'give a writer'),
    'name for a callback': (lambda out: SEARCH.on_step('print'), "'print'",
                            'give a function'),
    'weights for a state':
    (lambda out: SEARCH.load_state_dict(SEARCH.model.state_dict()), 'state',
     'state_dict'),
    'misspelt argument of export':
    (lambda out: SEARCH.export(out / 'a', pictures=False), '"pictures"',
     'did you mean "picture"'),
    'export to a file': (lambda out: SEARCH.export(_file(out)), 'is a file',
                         'Name another folder'),
    'export over a photo album': (lambda out: SEARCH.export(_file(out).parent),
                                  "'mine.txt'", 'Name another folder'),
    'a batch for a loader':
    (lambda out: with_norm().export(out / 'a', bn_data=IMAGES),
     'bn_data is a Tensor', 'give a loader'),
    'a data set for a loader':
    (lambda out: with_norm().export(out / 'a', bn_data=TensorDataset(IMAGES)),
     'bn_data is a TensorDataset', 'give a loader'),
    'samples for batches':
    (lambda out: with_norm().export(out / 'a', bn_data=[IMAGES[0]]),
     'bn_data: the network does not take a batch of it, a tensor of shape '
     '(3, 6, 6)', 'give a loader'),
    'a number of batches of nothing':
    (lambda out: with_norm().export(out / 'a', bn_batches=20),
     'bn_data=, which was not given', 'give a loader'),
    'a class for a subnet': (lambda out: build_subnet(Small, exported(out)),
                             'the model is a type', 'call it first, Small()'),
    'a class for a file':
    (lambda out: write_portable(Small, IMAGES, out / 'a.onnx'),
     'the model is a type', 'call it first, Small()'),
    'a file of an empty batch':
    (lambda out: write_portable(Small(), IMAGES[:0], out / 'a.onnx'),
     '"input" is empty', 'give one sample'),
    'a checkpoint of something else':
    (lambda out: build_subnet(Small(), exported(out), dict(epoch=3)),
     "under 'state_dict', 'model'", 'its entries are epoch'),
    'a subnet of nothing':
    (lambda out: build_subnet(Small(), out / 'subnet.json'), 'subnet.json',
     'subnet.json'),
}


def with_norm():
    """A search of a network that has statistics to take."""
    model = Small()
    model.body.insert(1, nn.BatchNorm2d(8))
    return begin(model=model)


def exported(out):
    """The manifest of an export."""
    return SEARCH.export(out / 'subnet', picture=False).path / 'subnet.json'


def _file(out):
    """A file that no export has written."""
    (out / 'mine.txt').write_text('mine')
    return out / 'mine.txt'


def check(mistake, named, advised):
    with pytest.raises(Exception) as told:
        mistake()
    assert isinstance(told.value,
                      (ValueError, TypeError, RuntimeError, OSError))
    assert not isinstance(told.value, (AttributeError, KeyError))
    text = re.sub(r'\s+', ' ', str(told.value))
    assert named in text, text
    assert advised in text, text


@pytest.mark.parametrize('name', BEFORE)
def test_before_the_search(name):
    check(*BEFORE[name])


@pytest.mark.parametrize('name', DURING)
def test_during_the_search(name, tmp_path):
    mistake, *words = DURING[name]
    check(lambda: mistake(tmp_path), *words)


def test_there_are_enough():
    assert len(BEFORE) + len(DURING) >= 40
    assert not SEARCH.bank.updates, 'no mistake has moved a ratio'
