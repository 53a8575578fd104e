# Copyright (c) dms_razor contributors. All rights reserved.
# A pretrained ResNet-50 to 1.6 G MACs; all blocks stay, only channels go.
_base_ = './dms-resnet50-1g_8xb32-10e_in1k.py'

model = dict(target='1.6G', mutator=dict(depth=False))

# a pretrained network goes on from where its own schedule was after epoch 30
optim_wrapper = dict(optimizer=dict(lr=0.01))

load_from = 'https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'  # noqa: E501
