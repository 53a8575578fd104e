# Copyright (c) dms_razor contributors. All rights reserved.
"""Is a space true in train mode? Masked against sliced network, in float64."""
import copy

import torch
from equality import distance, keeps, randomise
from small_nets import IMAGES
from torch import nn

from dms_razor.masking import attach, unmask
from dms_razor.network import tensors_of
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace


def ran(model, inputs, call):
    """All float tensors that a copy returns in train mode, without dropout."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.
    torch.manual_seed(0)
    with torch.no_grad():
        out = call(model, *inputs)
    return [t for t in tensors_of(out) if t.is_floating_point()]


def assert_true_in_training(model, inputs=IMAGES, call=None, **options):
    """Trace a network on one sample and train masked and sliced copies.

    Args:
        model (nn.Module): The network, in float32.
        inputs (Tensor | tuple): A batch of at least two samples.
        call (callable, optional): ``call(model, *inputs)``, in train mode.
        options: Arguments of ``trace``.

    Returns:
        Space: The space.
    """
    inputs = inputs if isinstance(inputs, tuple) else (inputs, )
    randomise(model)
    space = trace(model, inputs[0][:1], **options)
    call = call or (lambda model, *inputs: model(*inputs))
    wide = copy.deepcopy(model).double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    for keep in keeps(space, 2):
        masks = keep.double()
        attach(wide, space, lambda: masks)
        expected = ran(wide, inputs, call)
        unmask(wide)
        found = ran(slice_model(wide, space, keep), inputs, call)
        assert distance(expected, found) < 1e-6
    return space
