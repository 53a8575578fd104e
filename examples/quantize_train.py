# Copyright (c) dms_razor contributors. All rights reserved.
"""Training with quantisation in the loop (QAT), after a search and a training.

    python examples/loop_plain.py
    python examples/quantize_train.py work_dirs/loop_plain/subnet [--short]

The subnet is trained, quantised statically, and trained on with the rounding
of int8 in its forward pass, by PyTorch's own tools. Writes subnet_qat.onnx,
with the ranges that training has found in it.
"""
import copy
import io
import sys
import warnings
from pathlib import Path

import torch
from _digits import accuracy, make_data, make_network
from loop_plain import train
from quantize_onnx import accuracy as accuracy_of_file
from torch import nn
from torch.ao.quantization import (disable_observer,
                                   get_default_qat_qconfig_mapping,
                                   get_default_qconfig_mapping)
from torch.ao.quantization.quantize_fx import (convert_fx, prepare_fx,
                                               prepare_qat_fx)
from torch.nn.intrinsic.qat import freeze_bn_stats
from torch.utils.data import DataLoader

from dms_razor.subnet import build_subnet

# PyTorch says at every call that these tools and their tensors move to torchao
for text in ('torch.ao.quantization is', '.*reduce_range',
             'torch.quantize_per'):
    warnings.filterwarnings('ignore', text)


def static_int8(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Int8 with the ranges of some images, and no training."""
    prepared = prepare_fx(
        copy.deepcopy(model).eval(),
        get_default_qconfig_mapping(torch.backends.quantized.engine),
        (images[:1], ))
    with torch.no_grad():
        prepared(images)
    return convert_fx(prepared)


def train_with_rounding(model: nn.Module, loader: DataLoader,
                        epochs: int) -> nn.Module:
    """The network with the rounding of int8 in its forward pass, trained."""
    # version 0 of the settings is the one that ONNX has operations for
    prepared = prepare_qat_fx(
        copy.deepcopy(model).train(),
        get_default_qat_qconfig_mapping(torch.backends.quantized.engine, 0),
        (next(iter(loader))[0][:1], ))
    train(prepared, loader, epochs, lr=.01)
    return prepared.apply(freeze_bn_stats).apply(disable_observer).eval()


def write(prepared: nn.Module, images: torch.Tensor, path: Path) -> Path:
    """An ONNX file that rounds where the network does.

    ``write_portable`` would refuse it: ONNX Runtime computes in int8 what
    PyTorch computes in floats that are rounded, and steps differ.
    """
    torch.onnx.export(
        prepared, (images, ),
        str(path),
        input_names=['input'],
        output_names=['logits'],
        dynamic_axes=dict(input={0: 'batch'}, logits={0: 'batch'}),
        opset_version=17,
        dynamo=False)
    return path


def size(model: nn.Module) -> int:
    """Bytes of its weights in a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return len(file.getvalue())


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit('usage: python examples/quantize_train.py SUBNET [--short]')
    folder, short = Path(sys.argv[1]), '--short' in sys.argv
    torch.manual_seed(0)
    data, test = make_data()
    loader = DataLoader(data, 64, shuffle=True, drop_last=True)
    model = build_subnet(make_network(), folder / 'subnet.json',
                         folder / 'subnet.pth')
    train(model, loader, 6 if short else 20)
    static = static_int8(model, data.tensors[0][:512])
    rounded = train_with_rounding(model, loader, 3 if short else 10)
    qat = convert_fx(copy.deepcopy(rounded))
    for name, network in (('float', model), ('static int8', static),
                          ('int8 after training with it', qat)):
        print(f'{name}: {size(network):,} bytes, '
              f'accuracy {accuracy(network, test):.1%}')
    path = write(rounded, data.tensors[0][:2], folder / 'subnet_qat.onnx')
    print(f'{path}: {path.stat().st_size:,} bytes, '
          f'accuracy {accuracy_of_file(path, test):.1f}%')


if __name__ == '__main__':
    main()
