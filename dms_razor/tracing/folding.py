# Copyright (c) dms_razor contributors. All rights reserved.
"""Where a width mask costs least: the norm in front of a layer.

A mask m on what a layer reads can be moved back through a rectifier, since
``relu(z) * m = relu(z * m)`` for m >= 0, and into the affine parameters of
the norm before it: ``(norm(x) * w + b) * m = norm(x) * (w m) + b m``. That is
the same function with the same gradients, at O(channels) instead of
O(weights of the layer). It takes a chain in which nothing else is read.
"""
from typing import Dict, List, Tuple

#: f(z * m) = f(z) * m for one m >= 0 a channel.
HOMOGENEOUS = ('relu', 'leaky_relu', 'dropout', 'max_pool2d', 'avg_pool2d')
NORMS = ('batch_norm', 'layer_norm', 'rms_norm', 'group_norm')
LAYERS = ('conv1d', 'conv2d', 'conv3d', 'linear')


class MaskFolding:
    """Finds the norm that can carry a layer's masks.

    Args:
        recorder (Recorder): The finished recording.
    """

    def __init__(self, recorder) -> None:
        self.nodes, self.calls = recorder.nodes, recorder.calls
        self.modules = recorder.modules
        self.axes = recorder.facts.axes
        self.readers: Dict[int, int] = {}
        for node in self.nodes:
            for source in node.inputs:
                self.readers[source] = self.readers.get(source, 0) + 1
        for source in recorder.output_nodes:
            self.readers[source] = self.readers.get(source, 0) + 1
        self.times: Dict[str, int] = {}
        for call in self.calls:
            self.times[call.path] = self.times.get(call.path, 0) + 1
        self.layers: Dict[str, List[int]] = {}
        for operation in recorder.facts.operations:
            if operation.op in LAYERS:
                self.layers.setdefault(operation.module,
                                       []).append(operation.node)

    def norm_of(self, layer: str, channels: int) -> Tuple[str, ...]:
        """The affine parameters that can carry the masks of ``layer``.

        Args:
            layer (str): Path of a convolution or linear layer.
            channels (int): How many channels it reads.

        Returns:
            tuple[str]: Full names of a norm's parameters; none if there is no
            such norm.
        """
        nodes = self.layers.get(layer, ())
        if len(nodes) != 1 or self.times[layer] != 1:
            return ()
        node = self.nodes[nodes[0]]
        while len(node.inputs) == 1 and self.readers[node.inputs[0]] == 1:
            node = self.nodes[node.inputs[0]]
            if node.op in NORMS:
                return self._affine(node, channels)
            if node.op not in HOMOGENEOUS:
                return ()
        return ()

    def _affine(self, node, channels: int) -> Tuple[str, ...]:
        """Names of the norm's parameters, if they scale what the node is."""
        if node.call < 0:
            return ()
        path = self.calls[node.call].path
        if self.times[path] != 1 or (f'{path}.weight', 0) not in self.axes:
            return ()
        names = tuple(f'{path}.{name}' for name in ('weight', 'bias')
                      if (f'{path}.{name}', 0) in self.axes)
        shift = getattr(self.modules[path], 'bias', None)
        if shift is not None and len(names) == 1:
            return ()
        if any(len(self.axes[name, 0].labels) != channels for name in names):
            return ()
        return names
