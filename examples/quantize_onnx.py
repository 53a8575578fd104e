# Copyright (c) dms_razor contributors. All rights reserved.
"""Static int8 quantisation of an exported subnet, with ONNX Runtime.

    python examples/loop_plain.py
    python examples/quantize_onnx.py work_dirs/loop_plain/subnet/subnet.onnx

The ranges of activations are taken from training images; weights have a scale
for each channel. Writes subnet_int8.onnx beside the file.
"""
import sys
from pathlib import Path

import onnxruntime
from _digits import make_data
from onnxruntime.quantization import CalibrationDataReader, quantize_static


class Batches(CalibrationDataReader):
    """Batches of images, one after the other, as the file takes them."""

    def __init__(self, images, batch=64):
        self.batches = iter(images.split(batch))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else dict(input=batch.numpy())


def accuracy(path, data):
    """In percent, of what a file gets right."""
    images, labels = data.tensors
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider'])
    logits, = session.run(None, dict(input=images.numpy()))
    return 100 * (logits.argmax(1) == labels.numpy()).mean()


def main():
    if len(sys.argv) != 2:
        sys.exit('usage: python examples/quantize_onnx.py SUBNET.onnx')
    path = Path(sys.argv[1])
    data, test = make_data()
    small = path.with_name(f'{path.stem}_int8.onnx')
    quantize_static(
        path, small, Batches(data.tensors[0][:512]), per_channel=True)
    for file in (path, small):
        print(f'{file}: {file.stat().st_size:,} bytes, '
              f'accuracy {accuracy(file, test):.1f}%')


if __name__ == '__main__':
    main()
