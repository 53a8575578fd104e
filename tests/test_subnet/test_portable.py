# Copyright (c) dms_razor contributors. All rights reserved.
"""Subnets of plain Python as files, against the network itself."""
import builtins
from collections import OrderedDict, namedtuple
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from toy_nets import make_search, plain_net

from dms_razor import Search
from dms_razor.subnet.portable import (FORMATS, DeployError, Portable,
                                       write_portable)


@pytest.fixture
def export(tmp_path):
    return make_search(
        plain_net(), target='50%').export(
            tmp_path / 'subnet', picture=False)


@pytest.mark.parametrize('samples', [1, 5])
def test_onnx(export, samples):
    path = export.onnx()
    assert path == export.path / 'subnet.onnx'
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider'])
    images = torch.randn(samples, 3, 8, 8)
    found, = session.run(['output'], dict(input=images.numpy()))
    expected = export.model.eval()(images).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


LOADERS = [
    ('torchscript', torch.jit.load),
    ('pt2', lambda path: torch.export.load(path).module()),
]


@pytest.mark.parametrize('format, load', LOADERS)
def test_formats_of_torch(export, tmp_path, format, load):
    suffix = dict(torchscript='pt', pt2='pt2')[format]
    path = getattr(export, format)(tmp_path / f'mine.{suffix}')
    images = torch.randn(4, 3, 8, 8)
    found = load(str(path))(images)
    torch.testing.assert_close(found, export.model.eval()(images))


def test_what_is_written_is_the_network_as_it_is_now(export):
    with torch.no_grad():
        export.model.fc.bias += 7
    assert export.model.training
    found = torch.jit.load(str(export.torchscript()))(torch.zeros(1, 3, 8, 8))
    assert export.model.training, 'it is left as it was'
    torch.testing.assert_close(found,
                               export.model.eval()(torch.zeros(1, 3, 8, 8)))


@pytest.mark.parametrize('format', ['onnx', 'torchscript', 'pt2'])
def test_batch_norm_keeps_the_statistics_it_has(tmp_path, format):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 2))
    model[1].running_mean.copy_(torch.arange(4.))
    model[1].running_var.fill_(9.)
    path = tmp_path / f'mine{FORMATS[format]}'
    images = torch.randn(2, 3, 8, 8)
    write_portable(model, images, path, format)
    if format == 'onnx':
        found, = onnxruntime.InferenceSession(
            str(path),
            providers=['CPUExecutionProvider']).run(None,
                                                    dict(input=images.numpy()))
        found = torch.from_numpy(found)
    else:
        found = torch.jit.load(str(path))(images) \
            if format == 'torchscript' else \
            torch.export.load(path).module()(images)
    torch.testing.assert_close(found, model.eval()(images))


class Named(nn.Module):
    """Takes words by name and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.inner = nn.Linear(8, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, ids, scale, double=False):
        x = self.inner(self.words(ids)).relu() * scale[:, None, None]
        x = self.out(x.mean(1))
        return dict(scores=x * 2 if double else x, sum=x.sum(-1))


def test_inputs_by_name_and_several_outputs(tmp_path):
    model = Named()
    inputs = dict(
        ids=torch.randint(20, (1, 6)), scale=torch.ones(1), double=True)
    path = Search(
        model, inputs, target='60%', batch_size=1).export(
            tmp_path / 'subnet', picture=False).onnx()
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider'])
    assert [entry.name for entry in session.get_inputs()] == ['ids', 'scale']
    ids, scale = torch.randint(20, (3, 6)), torch.rand(3)
    subnet = make_same(model, tmp_path)
    scores, total = session.run(None,
                                dict(ids=ids.numpy(), scale=scale.numpy()))
    expected = subnet(ids, scale, double=True)
    np.testing.assert_allclose(
        scores, expected['scores'].detach(), atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(
        total, expected['sum'].detach(), atol=1e-5, rtol=1e-4)


def make_same(model, folder):
    """The subnet, built again from its files."""
    from dms_razor.subnet import build_subnet
    return build_subnet(Named(), folder / 'subnet/subnet.json',
                        folder / 'subnet/subnet.pth').eval()


@dataclass
class Answer:
    """What no format knows."""
    first: torch.Tensor
    second: torch.Tensor


Pair = namedtuple('Pair', 'first second')
KINDS = {
    'tensor': lambda x: x,
    'tuple of one': lambda x: (x, ),
    'list': lambda x: [x, 2 * x],
    'nested': lambda x: (x, (2 * x, 3 * x)),
    'dict': lambda x: dict(a=x, b=2 * x),
    'a class of dict': lambda x: OrderedDict(a=x, b=2 * x),
    'a class of tuple': lambda x: Pair(x, 2 * x),
    'object': lambda x: Answer(x, 2 * x),
}


class Returning(nn.Module):
    """Returns its input in a container of some kind."""

    def __init__(self, kind):
        super().__init__()
        self.make = KINDS[kind]

    def forward(self, x):
        return self.make(x.relu())


@pytest.mark.parametrize('format, load', LOADERS)
@pytest.mark.parametrize('kind', list(KINDS))
def test_a_file_returns_what_the_network_returns(tmp_path, format, load, kind):
    path = tmp_path / f'mine{FORMATS[format]}'
    images = torch.arange(6.).view(3, 2) - 2
    expected, told = KINDS[kind](images.relu()), nullcontext()
    if kind == 'object':
        expected = (expected.first, expected.second)
        told = pytest.warns(
            UserWarning,
            match=f'mine.* flat tuple, because '
            f'{format} cannot hold .*; for another structure')
    with told:
        write_portable(Returning(kind), torch.ones(1, 2), path, format)
    found = load(str(path))(images)
    assert type(found) is {
        OrderedDict: dict,
        Pair: tuple
    }.get(type(expected), type(expected))
    expected = dict(expected) if kind.endswith('dict') else expected
    torch.testing.assert_close(found, expected)


def test_without_onnx_runtime_it_says_that_nothing_was_compared(
        export, monkeypatch):
    without(monkeypatch, 'onnxruntime')
    with pytest.warns(UserWarning, match='subnet.onnx was not compared'):
        assert export.onnx().exists()


def without(monkeypatch, package):
    """Make a package one that is not installed."""
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == package:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', missing)


def test_a_missing_package_is_named(export, monkeypatch):

    def fails(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'onnx'", name='onnx')

    monkeypatch.setattr(torch.onnx, 'export', fails)
    with pytest.raises(
            DeployError,
            match='subnet.onnx needs the package onnx, .*: pip '
            'install onnx; torchscript and pt2 need torch alone'):
        export.onnx()
    assert not (export.path / 'subnet.onnx').exists()


class Batch(nn.Module):
    """Computes with the batch size as a number, which a tracer keeps."""

    def forward(self, x):
        return x.mean((1, 2, 3)) * len(x)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path):
    with pytest.raises(DeployError, match='would differ .* not kept'):
        write_portable(Batch(), torch.ones(1, 3, 4, 4), tmp_path / 'a.pt',
                       'torchscript')
    assert not list(tmp_path.iterdir())


class Branch(nn.Module):
    """Depends on its data in Python."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize('call, message', [
    (lambda out: write_portable(nn.ReLU(), torch.ones(1, 2), out / 'a.onnx',
                                'onx'), "'onx'; did you mean \"onnx\""),
    (lambda out: write_portable(nn.ReLU(), torch.ones(1, 2), out / 'a.pt'),
     'a.pt is no file name for the format onnx; .* ends with .onnx'),
    (lambda out: write_portable(Branch(), torch.ones(1, 2), out / 'a.pt2',
                                'pt2'), 'while writing a.pt2: .* Try onnx or'),
    (lambda out: Portable(nn.ReLU(), 3), 'without any tensor'),
    (lambda out: Portable(nn.ReLU(), [[torch.ones(2)]]),
     '"input" is a list with tensors in it'),
])  # yapf: disable
def test_messages(tmp_path, call, message):
    with pytest.raises(DeployError, match=message):
        call(tmp_path)
    assert not list(tmp_path.iterdir())
