# Copyright (c) dms_razor contributors. All rights reserved.
"""What the first dimension of an example means, found out or asked for."""
import pytest
import torch
from torch import nn

from dms_razor import Search
from dms_razor.network import run_model, samples_of
from dms_razor.trace import trace


def pointwise(first, *before):
    return nn.Sequential(*before, nn.Linear(first, 24), nn.ReLU(),
                         nn.Linear(24, 5))


def convolutions(*after):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1), *after)


class Then(nn.Module):
    """A network, and what is done with its result."""

    def __init__(self, net, then):
        super().__init__()
        self.net, self.then = net, then

    def forward(self, x):
        return self.then(self.net(x))


class Images(nn.Module):
    """Takes a list of images, as the detectors of torchvision do."""

    def __init__(self):
        super().__init__()
        self.net = convolutions()

    def forward(self, images):
        return [self.net(image[None])[0].mean((1, 2)) for image in images]


class Boxes(Images):
    """Takes a batch, and gives each image a result of its own."""

    def forward(self, images):
        return [dict(scores=out) for out in super().forward(images)]


def sequences(kind, **settings):
    return Then(kind(8, 16, **settings), lambda out: out[0])


def attention(**settings):
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0., **settings)


IMAGES, WORDS = torch.randn(3, 3, 8, 8), torch.arange(28).view(4, 7) % 20
CASES = dict(
    images=(convolutions(nn.Flatten(), nn.Linear(256, 4)), IMAGES, 3),
    dense=(convolutions(), IMAGES, 3),
    a_loss=(Then(convolutions(), torch.mean), IMAGES, 3),
    single_pixels=(nn.Conv2d(3, 4, 1), IMAGES, 3),
    all_zero=(convolutions(), torch.zeros(3, 3, 8, 8), 3),
    words=(nn.Sequential(
        nn.Embedding(20, 8), attention(batch_first=True),
        nn.Linear(8, 3)), WORDS, 4),
    equal_words=(nn.Sequential(
        nn.Embedding(20, 8),
        attention(batch_first=True)), torch.zeros(4, 7).long(), 4),
    batch_first=(sequences(nn.LSTM, batch_first=True), torch.randn(4, 7,
                                                                   8), 4),
    time_first=(sequences(nn.LSTM), torch.randn(7, 4, 8), 1),
    tokens_first=(attention(), torch.randn(7, 2, 8), 1),
    one_image=(nn.Sequential(nn.Conv2d(3, 4, 3),
                             nn.ReLU()), torch.randn(3, 8, 8), 1),
    one_vector=(pointwise(16), torch.randn(16), 1),
    list_of_one=(Images(), [torch.randn(3, 8, 8)], 1),
    list_of_two=(Images(), [torch.randn(3, 8, 8)] * 2, 1),
    points=(Then(pointwise(3), lambda x: x.amax(0)), torch.randn(50, 3), 1),
    one_row=(pointwise(3), torch.randn(1, 3), 1))
UNKNOWN = dict(
    rows=(pointwise(3), torch.randn(50, 3)),
    time_of_one=(pointwise(16), torch.randn(50, 1, 16)),
    single_words=(pointwise(8, nn.Embedding(20, 8)), WORDS),
    each_its_own=(Boxes(), IMAGES),
    a_mean=(Then(pointwise(8), torch.mean), torch.randn(4, 8)))


@pytest.mark.parametrize('case', CASES)
def test_what_the_network_does_tells(case):
    net, x, number = CASES[case]
    assert samples_of(net.eval(), (x, ), run_model) == number
    assert samples_of(net, (x, ), run_model, 7) == 7


@pytest.mark.parametrize('seed', range(40))
def test_a_maximum_over_points_is_one_sample(seed):
    torch.manual_seed(seed)  # few changes of one point win all maxima
    net = Then(pointwise(3), lambda x: x.amax(0)).eval()
    assert samples_of(net, (torch.randn(50, 3), ), run_model) == 1


@pytest.mark.parametrize('case', UNKNOWN)
def test_who_cannot_tell_asks(case):
    net, x = UNKNOWN[case]
    size = len(x)
    with pytest.raises(ValueError, match=f'batch_size={size} if.*batch of on'):
        samples_of(net.eval(), (x, ), run_model)


@pytest.mark.parametrize('number', [0, 1.5, -1, '2'])
def test_a_number_that_is_none(number):
    with pytest.raises(ValueError, match='batch_size is'):
        trace(pointwise(3), torch.ones(4, 3), batch_size=number)


def test_stated_samples_are_divided_out():
    x, macs = torch.randn(6, 2, 16), 16 * 24 + 24 * 5
    for stated in (1, 2, 3, 12):
        space = trace(pointwise(16), x, batch_size=stated)
        assert space.resource.supernet() == 12 * macs / stated
        assert space.batch_size == stated
    with pytest.raises(ValueError, match='are no 5 equal samples: state batc'):
        trace(pointwise(16), x, batch_size=5)
    search = Search(pointwise(16), x, '60%', batch_size=6, total_steps=5)
    assert search.preflight().supernet['macs'] == 2 * macs
    assert '6 in the example input of 6×2×16; costs are of one' in str(
        search.preflight())


def test_time_is_not_divided_out():
    """[T, B, C] of one sequence, by hand: 4·h·(i + h) a step."""
    net = Then(sequences(nn.LSTM), pointwise(16))
    space = trace(net, torch.randn(9, 1, 8))
    assert space.resource.supernet() == 9 * (4 * 16 * 24 + 16 * 24 + 24 * 5)


def test_the_model_is_as_before():
    net, x, _ = CASES['dense']
    net.train()
    mean, random = net[1].running_mean.clone(), torch.get_rng_state()
    samples_of(net, (x, ), run_model)
    assert net.training and torch.equal(net[1].running_mean, mean)
    assert torch.equal(random, torch.get_rng_state())
