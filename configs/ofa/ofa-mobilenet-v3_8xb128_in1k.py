# Copyright (c) dms_razor contributors. All rights reserved.
# MMRazor's OFA MobileNetV3 supernet as its largest network, with mmpretrain's
# recipe for MobileNetV3.
_base_ = [
    'mmpretrain::mobilenet_v3/mobilenet-v3-large_8xb128_in1k.py',
    'mmrazor::_base_/nas_backbones/ofa_mobilenetv3_supernet.py',
]
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    type='DMSStaticSupernet',
    cfg=dict(
        type='SearchableImageClassifier',
        _scope_='mmrazor',
        backbone=_base_.nas_backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='DynamicLinearClsHead',
            num_classes=1000,
            in_channels=1280,
            loss=dict(
                type='mmpretrain.LabelSmoothLoss',
                num_classes=1000,
                label_smooth_val=0.1,
                mode='original',
                loss_weight=1.0),
            topk=(1, 5)),
        connect_head=dict(
            connect_with_backbone='backbone.last_mutable_channels')))
