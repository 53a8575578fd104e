# Copyright (c) dms_razor contributors. All rights reserved.
# MMRazor's Autoformer supernet, tiny space,
# as its largest network, with mmpretrain's recipe for DeiT.
_base_ = 'mmpretrain::deit/deit-small_4xb256_in1k.py'
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    type='DMSStaticSupernet',
    cfg=dict(
        type='SearchableImageClassifier',
        _scope_='mmrazor',
        backbone=dict(
            type='AutoformerBackbone',
            arch_setting=dict(
                mlp_ratios=[3.5, 4.0],
                num_heads=[3, 4],
                depth=[12, 13, 14],
                embed_dims=[192, 216, 240])),
        neck=None,
        head=dict(
            type='DynamicLinearClsHead',
            num_classes=1000,
            in_channels=240,
            loss=dict(
                type='mmpretrain.LabelSmoothLoss',
                mode='original',
                num_classes=1000,
                label_smooth_val=0.1,
                loss_weight=1.0),
            topk=(1, 5)),
        connect_head=dict(connect_with_backbone='backbone.last_mutable'),
        train_cfg=dict(augments=[
            dict(type='mmpretrain.Mixup', alpha=0.8),
            dict(type='mmpretrain.CutMix', alpha=1.0)
        ])))
