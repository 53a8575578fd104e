# Copyright (c) dms_razor contributors. All rights reserved.
"""The loops in examples/, in their short form, where their package is."""
import importlib.util
import json
import os
import re
import runpy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'
LOOPS = sorted(path.stem for path in EXAMPLES.glob('loop_*.py'))


def test_they_are_all_here():
    assert LOOPS == [
        f'loop_{name}' for name in ('accelerate', 'lightning', 'plain', 'ray',
                                    'timm', 'transformers')
    ]


@pytest.mark.parametrize('loop', LOOPS)
def test_a_loop_ends_with_a_trained_smaller_network(loop, tmp_path,
                                                    monkeypatch, capsys):
    package = loop.partition('_')[2]
    # for the workers of Ray
    monkeypatch.setenv(
        'PYTHONPATH',
        os.pathsep.join([str(EXAMPLES), os.environ['PYTHONPATH']]))
    if package != 'plain' and importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed: tools/check_recipes.sh runs '
                    'this one in an environment that has it')
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr('sys.argv', [loop, '--short', '--out', str(tmp_path)])
    runpy.run_path(str(EXAMPLES / f'{loop}.py'), run_name='__main__')
    last = capsys.readouterr().out.strip().splitlines()[-1]
    told, path = re.fullmatch(r'accuracy ([\d.]+)%, (.*\.onnx)', last).groups()
    assert float(told) > 80
    assert Path(path).is_relative_to(tmp_path)
    report = json.loads(Path(path).with_name('report.json').read_text())
    macs = report['macs']
    assert .95 * macs['supernet'] / 2 < macs['counted'] <= macs['supernet'] / 2
    if package == 'plain':  # others see their images in another way
        assert accuracy(path) == pytest.approx(float(told), abs=.06)


def accuracy(path):
    """Of the file in ONNX Runtime, on every third digit, in percent."""
    images, labels = load_digits(return_X_y=True)
    images = (images[::3] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    session = onnxruntime.InferenceSession(
        path, providers=['CPUExecutionProvider'])
    logits, = session.run(None, dict(input=images))
    return 100 * np.mean(logits.argmax(1) == labels[::3])


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """The folder that the plain loop exports, for all kinds of int8."""
    folder = tmp_path_factory.mktemp('plain')
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(EXAMPLES)
        monkeypatch.setattr('sys.argv',
                            ['plain', '--short', '--out',
                             str(folder)])
        runpy.run_path(str(EXAMPLES / 'loop_plain.py'), run_name='__main__')
    return folder / 'subnet'


def test_int8_of_a_file(exported, monkeypatch, capsys):
    """Weights of a byte, and what the digits say is nearly as before."""
    monkeypatch.syspath_prepend(EXAMPLES)
    path = exported / 'subnet.onnx'
    monkeypatch.setattr('sys.argv', ['quantize', str(path)])
    runpy.run_path(str(EXAMPLES / 'quantize_onnx.py'), run_name='__main__')
    small = path.with_name('subnet_int8.onnx')
    weights = [
        tensor for tensor in onnx.load(small).graph.initializer
        if len(tensor.dims) == 4
    ]
    assert len(weights) == 4
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}
    assert small.stat().st_size < .5 * path.stat().st_size
    assert accuracy(str(small)) > accuracy(str(path)) - 5
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.endswith(f'accuracy {accuracy(str(small)):.1f}%')


def test_the_last_third_is_never_trained_on(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    names = runpy.run_path(str(EXAMPLES / '_digits.py'))
    train, test = names['make_data']()
    assert (len(train), len(test)) == (1198, 599)
    images = torch.tensor(load_digits().images).float() / 16
    assert torch.equal(test.tensors[0][:, 0], images[::3])
    assert torch.equal(train.tensors[0][:2, 0], images[1:3])


def test_int8_in_the_loop(exported, monkeypatch, capsys):
    """Four sizes and accuracies; the file rounds weights to 255 numbers."""
    monkeypatch.syspath_prepend(EXAMPLES)
    capsys.readouterr()

    monkeypatch.setattr('sys.argv', ['qat', str(exported), '--short'])
    runpy.run_path(str(EXAMPLES / 'quantize_train.py'), run_name='__main__')
    told = re.findall(r'^(.*): ([\d,]+) bytes, accuracy ([\d.]+)%$',
                      capsys.readouterr().out, re.M)
    path = exported / 'subnet_qat.onnx'
    assert [name for name, *_ in told] == [
        'float', 'static int8', 'int8 after training with it',
        str(path)
    ]
    sizes = [int(size.replace(',', '')) for _, size, _ in told]
    assert sizes[1] < .4 * sizes[0] and sizes[2] < .4 * sizes[0]
    whole, static, trained, file = (float(score) for *_, score in told)
    assert whole > 80 and min(static, trained, file) > whole - 5
    assert file == pytest.approx(accuracy(str(path)), abs=.06)
    # ranges of inputs and outputs are in the file, one for each of 5 layers
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count('DequantizeLinear') >= 2 * 5
    assert kinds.count('Conv') == 4 and kinds.count('Gemm') == 1
