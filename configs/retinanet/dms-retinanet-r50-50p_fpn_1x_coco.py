# Copyright (c) dms_razor contributors. All rights reserved.
# RetinaNet with a pretrained ResNet-50, searched from there, to half its MACs.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/dms_search.py',
]

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='50%',
    search=dict(epochs=10, width_only_epochs=2))

# mmdet freezes the stem and the first stage and keeps BatchNorm in eval mode:
# a subnet goes on from the weights that the search has trained
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(finetune=True)
