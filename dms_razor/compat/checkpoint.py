# Copyright (c) dms_razor contributors. All rights reserved.
"""Load checkpoints without running code from the file.

``torch.load(weights_only=True)`` refuses MMEngine's checkpoints, which hold
``HistoryBuffer`` and numpy objects, and ``weights_only=False`` runs whatever
the file asks for. torch's own list of safe globals does not help:
``HistoryBuffer`` pickles ``builtins.getattr``, and the list differs between
torch versions. What works from torch 2.1 on is a ``pickle_module`` of our
own, whose ``Unpickler`` hands out the names below and no others.
"""
import importlib
import os
import os.path as osp
import pickle
import struct
import tarfile
import types
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, Callable, Dict, Optional, Tuple
from urllib.parse import urlparse

import numpy as np
import torch

UNSAFE_ENV = 'DMS_RAZOR_UNSAFE_LOAD'
"""Set to 1 to load checkpoints with the full, unsafe unpickler."""

# numpy 2 renamed its core; files of either kind load under either version
_NUMPY_CORE = 'numpy._core' if np.__version__ >= '2' else 'numpy.core'
_HISTORY = 'mmengine.logging.history_buffer'
_ALLOWED = {
    'builtins': ('bool', 'bytearray', 'bytes', 'complex', 'dict', 'float',
                 'frozenset', 'int', 'list', 'set', 'slice', 'str', 'tuple'),
    'collections': ('Counter', 'OrderedDict', 'defaultdict', 'deque'),
    # numpy pickles bytes through it under protocol 2
    '_codecs': ('encode', ),
    'torch': ('Size', 'Tensor', 'device'),
    'torch._tensor': ('_rebuild_from_type_v2', ),
    'torch._utils':
    ('_rebuild_parameter', '_rebuild_parameter_with_state', '_rebuild_qtensor',
     '_rebuild_sparse_tensor', '_rebuild_tensor', '_rebuild_tensor_v2',
     '_rebuild_tensor_v3'),
    'torch.nn.parameter': ('Parameter', ),
    'torch.serialization': ('_get_layout', ),
    'numpy': ('ndarray', ),
    f'{_NUMPY_CORE}.multiarray': ('_reconstruct', 'scalar'),
    f'{_NUMPY_CORE}.numeric': ('_frombuffer', ),
    'mmengine.config.config': ('ConfigDict', ),
    _HISTORY: ('HistoryBuffer', ),
}
# What other versions of numpy write for the modules of today
_RENAMED = {
    f'{old}.{module}': f'{_NUMPY_CORE}.{module}'
    for old in ('numpy.core', 'numpy._core')
    for module in ('multiarray', 'numeric')
}
_STATISTICS = ('current', 'max', 'mean', 'min')
_NOT_INSTANCES = (type, types.FunctionType, types.BuiltinFunctionType,
                  types.MethodType, types.ModuleType)


class UnsafeCheckpointError(RuntimeError):
    """The file asks for something that the safe loader does not hand out."""


def _history_statistic(cls: type, name: str) -> Callable:
    """``builtins.getattr``, for HistoryBuffer's own statistics alone."""
    from mmengine.logging import HistoryBuffer
    if cls is not HistoryBuffer or name not in _STATISTICS:
        raise UnsafeCheckpointError(f'reads the attribute {name!r} of {cls!r}')
    return getattr(cls, name)


def _plain_dtype(*args) -> np.dtype:
    """``numpy.dtype`` without objects, records and sub-arrays."""
    dtype = np.dtype(*args)
    # the length of a text is in its type, and is allocated at once
    if dtype.kind not in 'biufcSUmM' or dtype.itemsize > 2**16:
        raise UnsafeCheckpointError(f'holds a numpy array of dtype {dtype}')
    return dtype


def _is_plain(dtype: np.dtype, state: Any) -> bool:
    """Whether pickling a plain dtype writes this: its byte order alone."""
    return (isinstance(state, tuple) and len(state) in (8, 9)
            and state[1] in '<>|=' and state[2:5] == (None, None, None)
            and state[5] in (-1, dtype.itemsize) and state[7] == dtype.flags)


def _check_call(function: Any, args: Any) -> None:
    """Refuse calls that make much of little, of names on the allow-list.

    A file may ask for ``bytearray(10**10)``, and no checkpoint does.
    """
    args = tuple(args) if isinstance(args, (tuple, list)) else (args, )
    name = getattr(function, '__name__', '')
    if function in (bytearray, bytes, str):
        sound = all(isinstance(a, (bytes, str, list, tuple)) for a in args)
        sound &= function is not str or not isinstance(args and args[0],
                                                       (list, tuple))
    elif name == '_reconstruct':
        sound = len(args) == 3 and args[0] is np.ndarray and args[1] == (0, )
    elif name == '_rebuild_from_type_v2':
        sound = getattr(args[0], '__name__', '').startswith('_rebuild_')
        _check_call(args[0], args[2])
    elif name == 'encode':
        sound = len(args) < 2 or args[1] in ('latin1', 'latin-1')
    elif name == 'scalar':
        sound = len(args) == 2
    else:
        sound = not (isinstance(function, type)
                     and issubclass(function, (np.ndarray, torch.Tensor)))
    if not sound:
        raise UnsafeCheckpointError(f'calls {name}{args!r:.40}')


class Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """An unpickler with an allow-list instead of the whole of Python."""

    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        """Return a named object of the allow-list.

        Raises:
            UnsafeCheckpointError: for every other name.
        """
        # protocol 2 writes the names of Python 2
        module, name = NAME_MAPPING.get((module, name), (module, name))
        module = IMPORT_MAPPING.get(module, _RENAMED.get(module, module))
        if (module, name) == ('builtins', 'getattr'):
            return _history_statistic
        if (module, name) == ('numpy', 'dtype'):
            return _plain_dtype
        if module == 'torch' and isinstance(
                getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == _HISTORY and name.startswith('HistoryBuffer.'):
            return _history_statistic(
                self.find_class(module, 'HistoryBuffer'),
                name.partition('.')[2])
        if name not in _ALLOWED.get(module, ()):
            raise UnsafeCheckpointError(f'asks for {module}.{name}')
        return getattr(importlib.import_module(module), name)

    def load_build(self) -> None:
        """Set the state of instances, never of classes or functions."""
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(target, _NOT_INSTANCES):
            raise UnsafeCheckpointError(f'changes {target!r}')
        if isinstance(target, np.dtype) and not _is_plain(target, state):
            raise UnsafeCheckpointError(
                f'changes the inside of dtype {target}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_reduce(self) -> None:
        """Call a function of the allow-list, with arguments of its own."""
        _check_call(self.stack[-2], self.stack[-1])
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        """Make an object; see :meth:`load_reduce`."""
        _check_call(self.stack[-2], self.stack[-1])
        super().load_newobj()

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        """Make an object by name; no checkpoint does."""
        raise UnsafeCheckpointError('makes an object by keyword arguments')

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _instantiate(self, klass: Any, args: Any) -> None:
        """What INST and OBJ, which only protocol 0 has, do."""
        _check_call(klass, args)
        super()._instantiate(klass, args)


SAFE_PICKLE = types.SimpleNamespace(
    __name__='dms_razor.safe_pickle',
    Unpickler=Unpickler,
    load=lambda file, **kwargs: Unpickler(file, **kwargs).load())
"""What :func:`torch.load` gets as ``pickle_module``; ``load`` is for torch's
old format."""


def _lengths(path: str) -> Tuple[int, Optional[Dict[str, int]]]:
    """Bytes of a file and, if it is a zip archive, of each storage in it.

    Raises:
        UnsafeCheckpointError: The file unpacks to more than it is.
    """
    size = osp.getsize(path)
    with open(path, 'rb') as file:
        zipped = file.read(4) == b'PK\3\4'
    if not zipped:
        if tarfile.is_tarfile(path):
            raise UnsafeCheckpointError(
                'is a tar archive, of before PyTorch 1.0,')
        return size, None
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    inside = [e for e in entries if '/data/' in e.filename]
    records = {e.filename.rpartition('/')[2]: e.file_size for e in inside}
    if (any(e.compress_type for e in entries) or len(records) < len(inside)
            or sum(e.file_size for e in entries) > size):
        raise UnsafeCheckpointError(
            'is packed otherwise than torch.save does it')
    return size, records


def _reading(path: str) -> types.SimpleNamespace:
    """:data:`SAFE_PICKLE` for one file, of which everything has to be there.

    Raises:
        UnsafeCheckpointError: See :func:`_lengths`.
    """
    size, records = _lengths(path)

    class Reading(Unpickler):
        """Knows how long the file and its storages are."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            read = self._file_read

            def bounded(count: int) -> bytes:
                # room is made for what is asked for, not for what is there
                if count > size:
                    raise ValueError(f'holds {count:,} bytes in {size:,}')
                return read(count)

            self._file_read = bounded

        def load_bytearray8(self) -> None:
            """As Python's own, which makes room before it reads."""
            count, = struct.unpack('<Q', self.read(8))
            self.append(bytearray(self.read(count)))

        def load_binpersid(self) -> None:
            """A storage: no longer than what is there, or torch would read
            what lies behind it, or allocate what nobody fills."""
            _, kind, key, _, count, *_ = self.stack[-1]
            item = getattr(kind, 'dtype', torch.uint8).itemsize
            there = size if records is None else records.get(str(key), -1)
            if type(count) is not int or not 0 <= count * item <= there:
                raise ValueError(
                    f'holds a storage of {count!r:.30} numbers and not the '
                    'numbers')
            super().load_binpersid()

        dispatch = {
            **Unpickler.dispatch, pickle.BINPERSID[0]: load_binpersid,
            pickle.BYTEARRAY8[0]: load_bytearray8
        }

    return types.SimpleNamespace(
        __name__='dms_razor.safe_pickle',
        Unpickler=Reading,
        load=lambda file, **kwargs: Reading(file, **kwargs).load())


def _is_torchscript(path: str) -> bool:
    """torch.load would hand such a file to torch.jit.load, pickle or not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(
            name.endswith('/constants.pkl') for name in archive.namelist())


def load_url(url: str,
             model_dir: Optional[str] = None,
             map_location: Any = None,
             progress: bool = True) -> Any:
    """Download a checkpoint into torch's cache and load it safely.

    The arguments are those of :func:`torch.hub.load_state_dict_from_url`,
    what is returned that of :func:`load_checkpoint`.
    """
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(urlparse(url).path))
    if not osp.exists(path):
        os.makedirs(folder, exist_ok=True)
        torch.hub.download_url_to_file(url, path, progress=progress)
    return load_checkpoint(path, map_location)


def load_checkpoint(path: str,
                    map_location: Any = None,
                    unsafe: Optional[bool] = None) -> Any:
    """Load a local checkpoint file, by default without running its code.

    Args:
        path (str): File written by :func:`torch.save`.
        map_location: As in :func:`torch.load`.
        unsafe (bool, optional): Load with the full unpickler, which runs
            code from the file. Defaults to the environment variable
            ``DMS_RAZOR_UNSAFE_LOAD``, and to ``False`` without it.

    Returns:
        Any: What was saved; MMEngine's checkpoints are dicts.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: The file holds something other than tensors,
            plain Python values, numpy arrays, ``HistoryBuffer`` and
            ``ConfigDict``.
        RuntimeError: The file is truncated or no checkpoint.
    """
    path = osp.expanduser(path)
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'Checkpoint {path} cannot be loaded: there is no such file. '
            'Check the path.')
    if unsafe is None:
        unsafe = os.environ.get(UNSAFE_ENV, '0') not in ('', '0')
    if unsafe:
        return torch.load(path, map_location=map_location, weights_only=False)
    try:
        if _is_torchscript(path):
            raise UnsafeCheckpointError('is a TorchScript program')
        return torch.load(
            path,
            map_location=map_location,
            pickle_module=_reading(path),
            weights_only=False)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(
            f'Checkpoint {path} {error}, which could run code from the file, '
            f'so it was not loaded. If you trust the file, set {UNSAFE_ENV}=1 '
            'or pass unsafe=True.') from None
    except Exception as error:  # whatever a damaged file makes of a pickle
        if 'CUDA' in str(error):  # a sound file for another machine
            raise
        # torch says what broke inside, never which file
        raise RuntimeError(
            f'Checkpoint {path} cannot be read ({type(error).__name__}: '
            f'{error}): it is truncated or no checkpoint. Copy or write it '
            'again.') from error
