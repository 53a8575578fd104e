# Copyright (c) dms_razor contributors. All rights reserved.
"""Configs of small models for tests."""


def classifier(**backbone):
    """A CIFAR ResNet-18 of 8 to 64 channels with four classes."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            dict(
                type='mmpretrain.ResNet_CIFAR',
                depth=18,
                out_indices=(3, ),
                stem_channels=8,
                base_channels=8), **backbone),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=4,
            in_channels=64,
            loss=dict(type='mmpretrain.CrossEntropyLoss')))


def algorithm(**settings):
    """A DMS algorithm on :func:`classifier`, for images of 16 x 16."""
    return dict(
        dict(
            type='mmrazor.DMS',
            architecture=classifier(),
            target=.5,
            input_shape=(3, 16, 16)), **settings)
