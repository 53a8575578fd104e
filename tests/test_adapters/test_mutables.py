# Copyright (c) dms_razor contributors. All rights reserved.
"""A subnet of MMRazor's Autoformer in every format of deployment."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from transformer_nets import keep_of

from dms_razor.adapters.mutables import widths_without_mutables
from dms_razor.deploy import FORMATS, RawOutputs, difference, write_network
from dms_razor.openmmlab.autoformer import DMSStaticSupernet
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace
from tools.zoo.check import randomise

CFG = dict(
    type='SearchableImageClassifier',
    _scope_='mmrazor',
    data_preprocessor=dict(type='mmcls.ClsDataPreprocessor'),
    backbone=dict(
        type='AutoformerBackbone',
        img_size=64,
        arch_setting=dict(
            mlp_ratios=[1.5, 2.0],
            num_heads=[2, 3],
            depth=[1, 2],
            embed_dims=[24, 36])),
    head=dict(
        type='DynamicLinearClsHead',
        num_classes=10,
        in_channels=36,
        loss=dict(type='mmcls.CrossEntropyLoss'),
        topk=(1, 5)),
    connect_head=dict(connect_with_backbone='backbone.last_mutable'))


@pytest.fixture(scope='module')
def subnet():
    torch.manual_seed(0)
    model = randomise(DMSStaticSupernet(CFG)).eval()
    space = trace(model, torch.randn(1, 3, 64, 64))
    subnet = slice_model(model, space, keep_of(space, 1, 4)).eval()
    assert subnet.backbone.cls_token.shape[-1] < 36
    return subnet


@pytest.mark.parametrize('format', list(FORMATS))
def test_files_of_autoformer(format, subnet, tmp_path):
    images = torch.randn(2, 3, 64, 64)
    network = RawOutputs(subnet, images)
    path = write_network(network, images, tmp_path / f'a{FORMATS[format]}',
                         format)
    for batch in (1, 2, 5):
        others = torch.randn(batch, 3, 64, 64)
        assert difference(network, path, others) < 1e-4


def test_only_for_a_while(subnet):
    before = {name: id(t) for name, t in subnet.state_dict().items()}
    mutable = subnet.backbone.mutable_embed_dims
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = subnet(images)
        with widths_without_mutables(subnet):
            assert subnet.backbone.mutable_embed_dims is None
            assert torch.equal(subnet(images), expected)
    assert subnet.backbone.mutable_embed_dims is mutable
    assert list(subnet.state_dict()) == list(before)
    mutable.current_choice = 24  # a searchable network as such
    with widths_without_mutables(subnet):
        assert subnet.backbone.mutable_embed_dims is mutable
    mutable.current_choice = 36
