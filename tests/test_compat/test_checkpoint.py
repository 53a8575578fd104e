# Copyright (c) dms_razor contributors. All rights reserved.
"""The allow-list: what checkpoints hold passes, everything else is refused."""
import codecs
import collections
import datetime
import io
import os
import pickle
import random
import struct
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import CheckpointLoader

from dms_razor.compat.checkpoint import (SAFE_PICKLE, UNSAFE_ENV,
                                         UnsafeCheckpointError, _reading,
                                         load_checkpoint, load_url)


class Reduced:
    """Pickles as the call ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save(content, tmp_path, **kwargs):
    path = tmp_path / 'checkpoint.pth'
    torch.save(content, path, **kwargs)
    return str(path)


def a_checkpoint():
    """What MMEngine's CheckpointHook writes, with real objects."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    hub = MessageHub.get_instance('test_checkpoint_loading')
    hub.update_scalar('train/loss', np.float64(2.5))
    hub.update_scalar('train/loss', 1.5)
    hub.update_info('epoch', np.int64(3))
    return dict(
        meta=dict(
            epoch=3,
            dataset_meta=ConfigDict(classes=('a', 'b'), palette=[(1, 2, 3)])),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=hub.state_dict(),
        arrays=[
            np.arange(6, dtype='>i4').reshape(2, 3),
            np.array(['x', 'yz']),
            np.array([True]),
            np.array(['2020-01-01'], dtype='M8[D]')
        ],
        plain={
            1: {2.5, frozenset([3])},
            'b': slice(1, 2),
            'c': 1 + 2j
        },
        half=torch.ones(2, dtype=torch.bfloat16),
        dtype=torch.float16,
        sparse=torch.eye(3).to_sparse(),
        size=torch.Size([1, 2]),
        device=torch.device('cpu'),
        parameter=torch.nn.Parameter(torch.ones(1)),
        counts=collections.defaultdict(int, a=1))


@pytest.mark.parametrize('kwargs', [{}, {
    '_use_new_zipfile_serialization': False
}, {
    'pickle_protocol': 4
}, {
    'pickle_protocol': 5
}])
def test_a_real_checkpoint_loads_as_the_full_unpickler_does(kwargs, tmp_path):
    path = save(a_checkpoint(), tmp_path, **kwargs)
    ours = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    truth = torch.load(path, map_location='cpu', weights_only=False)
    assert ours.keys() == truth.keys()
    for key in ('meta', 'plain', 'dtype', 'size', 'device', 'counts'):
        assert ours[key] == truth[key], key
        assert type(ours[key]) is type(truth[key]), key
    for name, value in truth['state_dict'].items():
        assert torch.equal(ours['state_dict'][name], value)
    assert ours['state_dict']._metadata == truth['state_dict']._metadata
    for index, values in truth['optimizer']['state'].items():
        for name, value in values.items():
            assert torch.equal(ours['optimizer']['state'][index][name], value)
    for array, expected in zip(ours['arrays'], truth['arrays']):
        assert array.dtype == expected.dtype
        assert np.array_equal(array, expected)
    for key in ('half', 'parameter'):
        assert torch.equal(ours[key], truth[key])
    assert torch.equal(ours['sparse'].to_dense(), torch.eye(3))
    assert isinstance(ours['parameter'], torch.nn.Parameter)
    history = ours['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == 2.0 and history.statistics('max') == 2.5
    assert ours['message_hub']['runtime_info']['epoch'] == 3


CALLS = {
    'os.system': lambda file: Reduced(os.system, f'touch {file}'),
    'eval': lambda file: Reduced(eval, f'open({file!r}, "w")'),
    'open': lambda file: Reduced(open, file, 'w'),
    'Popen': lambda file: Reduced(subprocess.Popen, ['touch', file]),
    'deep inside': lambda file: [{'a': (Reduced(os.mkdir, file), )}],
    'another class': lambda file: Reduced(getattr, dict, 'fromkeys'),
    'another attribute': lambda file: Reduced(
        getattr, HistoryBuffer, 'register_statistics'),
    'nested pickle': lambda file: Reduced(
        pickle.loads, pickle.dumps(Reduced(os.mkdir, file))),
    'nested torch.load': lambda file: Reduced(
        torch.storage._load_from_bytes, b''),
    'numpy.load': lambda file: Reduced(np.load, file, None, True),
    'an unlisted class': lambda file: datetime.date(2020, 1, 1),
    'an object array': lambda file: np.array([None]),
    'a record array': lambda file: np.zeros(1, dtype=[('a', 'f8')]),
}  # yapf: disable


@pytest.mark.parametrize('name', CALLS)
@pytest.mark.parametrize('zipped', [True, False])
def test_foreign_code_is_refused_and_does_not_run(name, zipped, tmp_path):
    file = tmp_path / 'ran'
    path = save(
        dict(state_dict={}, other=CALLS[name](str(file))),
        tmp_path,
        _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError) as error:
        CheckpointLoader.load_checkpoint(path)
    assert path in str(error.value)
    assert UNSAFE_ENV in str(error.value)
    assert not file.exists()


HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
DTYPE = b"cnumpy\ndtype\n(S'f8'\nI00\nI01\ntR"
RAW = {
    # BUILD (b) with a state of (None, {name: value}) calls setattr
    'sets an attribute of a class': HISTORY + b"(N(dS'mean'\nI1\nstb.",
    'sets an attribute of a function':
    b"ctorch._utils\n_rebuild_tensor\n(N(dS'x'\nI1\nstb.",
    'walks into a function':
    b'\x80\x04\x8c\x20mmengine.logging.history_buffer'
    b'\x8c\x1fHistoryBuffer.mean.__globals__\x93.',
    'makes a dtype of objects out of one of numbers':
    DTYPE + b"(I3\nS'<'\nNNNI-1\nI-1\nI63\ntb.",
    'gives a dtype fields':
    DTYPE + b"(I3\nS'<'\nN(S'a'\nt(dI8\nI1\nI0\ntb.",
    'asks the extension registry': b'\x82\x01.',
}  # yapf: disable


@pytest.mark.parametrize('name', RAW)
def test_crafted_pickles_are_refused(name):
    with pytest.raises((UnsafeCheckpointError, ValueError)):
        SAFE_PICKLE.load(io.BytesIO(RAW[name]))
    assert HistoryBuffer.mean is not 1  # noqa: F632
    assert np.dtype('f8').kind == 'f' and np.dtype('f8').names is None


def test_torchscript_is_refused(tmp_path):
    path = str(tmp_path / 'script.pt')
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with pytest.raises(UnsafeCheckpointError, match='TorchScript'):
        load_checkpoint(path)


def test_unsafe_loading_needs_the_switch(tmp_path, monkeypatch):
    date = datetime.date(2020, 1, 1)
    path = save(date, tmp_path)
    monkeypatch.delenv(UNSAFE_ENV, raising=False)
    with pytest.raises(UnsafeCheckpointError, match='datetime.date'):
        load_checkpoint(path)
    assert load_checkpoint(path, unsafe=True) == date
    monkeypatch.setenv(UNSAFE_ENV, '1')
    assert CheckpointLoader.load_checkpoint(path) == date
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(path, unsafe=False)
    monkeypatch.setenv(UNSAFE_ENV, '0')
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(path)


def test_missing_file_is_named(tmp_path):
    path = str(tmp_path / 'no.pth')
    with pytest.raises(FileNotFoundError, match='no.pth'):
        CheckpointLoader.load_checkpoint(path)


@pytest.mark.parametrize('share', [0, .5, .99])
@pytest.mark.parametrize('zipped', [True, False])
def test_truncated_file_is_named(share, zipped, tmp_path):
    path = tmp_path / 'cut.pth'
    torch.save(
        dict(weight=torch.ones(500)),
        path,
        _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(RuntimeError, match='cut.pth cannot be read.*Copy'):
        CheckpointLoader.load_checkpoint(str(path))


def test_downloads_are_loaded_safely_and_kept(tmp_path, monkeypatch):
    """Through a file:// address: no network, the same code."""
    from mmengine.runner import checkpoint
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    good, bad = tmp_path / 'good.pth', tmp_path / 'bad.pth'
    torch.save({'weight': torch.ones(2)}, good)
    torch.save(Reduced(os.mkdir, str(tmp_path / 'ran')), bad)
    loaded = checkpoint.load_from_http(good.as_uri())
    assert torch.equal(loaded['weight'], torch.ones(2))
    good.unlink()
    assert 'weight' in load_url(good.as_uri())  # the kept copy
    with pytest.raises(UnsafeCheckpointError, match='bad.pth'):
        checkpoint.load_from_http(bad.as_uri())
    assert not (tmp_path / 'ran').exists()


NUMBER = 10**10
MUCH_OF_LITTLE = {
    'bytearray': Reduced(bytearray, NUMBER),
    'bytes': Reduced(bytes, NUMBER),
    'an array': Reduced(np.ndarray, (NUMBER, )),
    'an array to fill': Reduced(np.ones(1).__reduce__()[0], np.ndarray,
                                (NUMBER, ), b'b'),
    'a text of numbers': Reduced(str, [[0] * 9] * 9),
    'long texts': Reduced(np.dtype, f'S{NUMBER // 10}'),
    'a tensor': Reduced(torch.Tensor, NUMBER),
    'by way of another': Reduced(torch._tensor._rebuild_from_type_v2,
                                 bytearray, torch.Tensor, (NUMBER, ), {}),
    'packed text': Reduced(codecs.encode, b'0' * 99, 'zlib'),
}  # yapf: disable


@pytest.mark.parametrize('name', MUCH_OF_LITTLE)
@pytest.mark.parametrize('zipped', [True, False])
def test_no_file_makes_much_of_little(name, zipped, tmp_path):
    path = save([MUCH_OF_LITTLE[name]],
                tmp_path,
                _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match='calls|holds|asks'):
        load_checkpoint(path)


def repacked(path, edit=lambda name, data: data, **settings):
    """The same archive, written again by another library."""
    with zipfile.ZipFile(path) as archive:
        parts = [(n, archive.read(n)) for n in archive.namelist()]
    with zipfile.ZipFile(path, 'w', **settings) as archive:
        for name, data in parts:
            archive.writestr(name, edit(name, data))


def test_storages_are_as_long_as_the_file_says(tmp_path):
    path = save(dict(a=torch.zeros(10**6)), tmp_path)
    repacked(path)
    assert load_checkpoint(path)['a'].shape == (10**6, )
    repacked(path, lambda name, data: data[:8] if '/data/' in name else data)
    with pytest.raises(RuntimeError, match='a storage of 1000000.*truncated'):
        load_checkpoint(path)
    path = save(dict(a=torch.zeros(10**6)), tmp_path)
    repacked(path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeCheckpointError, match='packed otherwise'):
        load_checkpoint(path)


def test_a_length_in_a_pickle_is_no_longer_than_the_file(tmp_path):
    """Python's unpickler makes room for what a file only speaks of."""
    path = save(dict(a='text'), tmp_path, _use_new_zipfile_serialization=False)
    with open(path, 'rb') as file:
        whole = file.read()
    text = b'X\x04\0\0\0text'
    assert text in whole
    crafted = [
        whole.replace(text, b'X\xff\xff\xff\x7ftext'),
        b'\x80\x05\x8d' + struct.pack('<Q', 2**31 - 1) + b'.',
        b'\x80\x05\x96' + struct.pack('<Q', 2**31 - 1) + b'.',
    ]
    for data in crafted:
        with open(path, 'wb') as file:
            file.write(data)
        with pytest.raises(RuntimeError, match='holds 2,147,483,647 bytes in'):
            load_checkpoint(path)
    with open(path, 'wb') as file:
        file.write(pickle.dumps(dict(a=bytearray(b'abc')), 5))
    with open(path, 'rb') as file:
        assert _reading(path).load(file) == dict(a=b'abc')


def test_old_archives_are_not_unpacked(tmp_path):
    path = str(tmp_path / 'old.pth')
    with tarfile.open(path, 'w') as archive:
        archive.add(__file__, 'storages')
    with pytest.raises(UnsafeCheckpointError, match='tar archive'):
        load_checkpoint(path)


def test_whatever_is_damaged_is_one_error(tmp_path):
    """Bytes that change, and pieces that are lost; no other exception."""
    source = random.Random(int(os.environ.get('DMS_RAZOR_SEED', 0)))
    for zipped in (True, False):
        path = save(
            dict(a=torch.zeros(9), b=[1, 'two', {
                3.: None
            }]),
            tmp_path,
            _use_new_zipfile_serialization=zipped)
        whole = open(path, 'rb').read()
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(source.randint(1, 4)):
                data[source.randrange(len(data))] = source.randrange(256)
            if not source.randrange(5):
                del data[source.randrange(len(data)):]
            open(path, 'wb').write(data)
            try:
                load_checkpoint(path)
            except RuntimeError as error:
                assert path in str(error)
