# Copyright (c) dms_razor contributors. All rights reserved.
"""timm's networks: one small variant of each of its model modules.

The images are the smallest of 64, 96, 128, ... that the network takes in eval
and in train mode; what is only there in a base size is built with fewer and
narrower blocks.
"""
from typing import Any, Dict, List, Tuple

from dms_razor.compat.shims import torchvision_schemas

torchvision_schemas()

import timm  # noqa: E402  isort: skip

from .case import Case, images  # noqa: E402  isort: skip

PACKAGES = ('timm', 'torchvision')

#: Module of ``timm.models`` -> (variant, side of the image, arguments).
MODELS: Dict[str, Tuple[str, int, Dict[str, Any]]] = dict(
    beit=('beit_base_patch16_224', 64,
          dict(depth=4, embed_dim=192, num_heads=3, img_size=64)),
    byoanet=('eca_botnext26ts_256', 64, dict(img_size=64)),
    byobnet=('gernet_s', 64, {}),
    cait=('cait_xxs24_224', 64, dict(img_size=64)),
    coat=('coat_tiny', 64, dict(img_size=64)),
    convit=('convit_tiny', 64, dict(img_size=64)),
    convmixer=('convmixer_768_32', 64, {}),
    convnext=('convnext_atto', 64, {}),
    cpubone=('cpubone_nano', 64, {}),
    crossvit=('crossvit_tiny_240', 64, {}),
    csatv2=('csatv2', 64, {}),
    cspnet=('cs3darknet_focus_s', 64, {}),
    cspnext=('cspnext_tiny', 64, {}),
    davit=('davit_tiny', 64, {}),
    deepseek_vit=('deepseek_vit_412m', 84,
                  dict(depth=4, embed_dim=192, num_heads=4, num_classes=10)),
    deit=('deit_tiny_patch16_224', 64, dict(img_size=64)),
    densenet=('densenet121', 64, {}),
    dla=('dla46x_c', 64, {}),
    dpn=('dpn48b', 64, {}),
    edgenext=('edgenext_xx_small', 64, {}),
    efficientformer=('efficientformer_l1', 224, {}),
    efficientformer_v2=('efficientformerv2_s0', 64, dict(img_size=64)),
    efficientnet=('efficientnet_b0', 64, {}),
    efficientvim=('efficientvim_m1', 64, {}),
    efficientvit_mit=('efficientvit_b0', 64, {}),
    efficientvit_msra=('efficientvit_m0', 64, {}),
    eva=('vit_tiny_patch16_dinov3_qkvb', 64, dict(num_classes=10)),
    fasternet=('fasternet_t0', 64, {}),
    fastvit=('fastvit_t8', 64, {}),
    focalnet=('focalnet_tiny_srf', 64, {}),
    gcvit=('gcvit_xxtiny', 64, dict(img_size=64)),
    gemma4_vit=('gemma4_vit_167m', 96,
                dict(
                    depth=4,
                    embed_dim=192,
                    num_heads=3,
                    intermediate_size=384,
                    num_classes=10)),
    ghostnet=('ghostnet_050', 64, {}),
    hardcorenas=('hardcorenas_b', 64, {}),
    hgnet=('hgnetv2_b0', 64, {}),
    hiera=('hiera_tiny_224', 64, dict(img_size=64)),
    hieradet_sam2=('sam2_hiera_tiny', 64, dict(num_classes=10)),
    hrnet=('hrnet_w18_small', 64, {}),
    iformer=('iformer_t', 64, {}),
    inception_next=('inception_next_atto', 64, {}),
    inception_resnet_v2=('inception_resnet_v2', 96, {}),
    inception_v3=('inception_v3', 96, {}),
    inception_v4=('inception_v4', 96, {}),
    lcnetv2=('lcnetv2_small', 64, {}),
    levit=('levit_128s', 64, dict(img_size=64)),
    lowformer=('lowformer_b0', 64, {}),
    mambaout=('mambaout_femto', 64, {}),
    maxxvit=('maxvit_pico_rw_256', 64, dict(img_size=64)),
    metaformer=('poolformer_s12', 64, {}),
    mlp_mixer=('gmlp_ti16_224', 64, dict(img_size=64)),
    mobilenetv3=('mobilenetv3_small_050', 64, {}),
    mobilenetv5=('mobilenetv5_base', 64, {}),
    mobilevit=('mobilevit_xxs', 64, {}),
    mvitv2=('mvitv2_tiny', 64, {}),
    naflexvit=('naflexvit_base_patch16_parfac_gap', 64,
               dict(depth=4, embed_dim=192, num_heads=3)),
    nasnet=('nasnetalarge', 64, {}),
    nest=('nest_tiny', 64, dict(img_size=64)),
    nextvit=('nextvit_small', 64, {}),
    nfnet=('nf_resnet26', 64, {}),
    pit=('pit_ti_224', 64, dict(img_size=64)),
    pnasnet=('pnasnet5large', 64, {}),
    pvt_v2=('pvt_v2_b0', 64, {}),
    qwen3_vit=('qwen3_vit_88m', 64,
               dict(depth=4, embed_dim=192, num_heads=4, num_classes=10)),
    rdnet=('rdnet_tiny', 64, {}),
    regnet=('regnetx_002', 64, {}),
    repghost=('repghostnet_050', 64, {}),
    repvit=('repvit_m1', 64, {}),
    res2net=('res2next50', 64, {}),
    resnest=('resnest14d', 64, {}),
    resnet=('resnet18', 64, {}),
    resnetv2=('resnetv2_18', 64, {}),
    rexnet=('rexnet_100', 64, {}),
    selecsls=('selecsls42', 64, {}),
    senet=('legacy_seresnet18', 64, {}),
    sequencer=('sequencer2d_s', 64, {}),
    shvit=('shvit_s1', 64, {}),
    sknet=('skresnet18', 64, {}),
    starnet=('starnet_s050', 64, {}),
    swiftformer=('swiftformer_xs', 64, {}),
    swin_transformer=('swin_tiny_patch4_window7_224', 64, dict(img_size=64)),
    swin_transformer_v2=('swinv2_tiny_window16_256', 64, dict(img_size=64)),
    swin_transformer_v2_cr=('swinv2_cr_tiny_224', 64, dict(img_size=64)),
    tiny_vit=('tiny_vit_5m_224', 64, {}),
    tnt=('tnt_s_legacy_patch16_224', 64, dict(img_size=64)),
    tresnet=('tresnet_m', 64, {}),
    twins=('twins_svt_small', 64, {}),
    vgg=('vgg11', 64, {}),
    visformer=('visformer_tiny', 64, dict(img_size=64)),
    vision_transformer=('vit_tiny_patch16_224', 64, dict(img_size=64)),
    vision_transformer_hybrid=('vit_tiny_r_s16_p8_224', 64, dict(img_size=64)),
    vision_transformer_relpos=('vit_srelpos_small_patch16_224', 64,
                               dict(
                                   depth=4,
                                   embed_dim=192,
                                   num_heads=3,
                                   img_size=64)),
    vision_transformer_sam=('samvit_base_patch16_224', 64,
                            dict(
                                depth=4,
                                embed_dim=192,
                                num_heads=3,
                                global_attn_indexes=(1, 3))),
    vitamin=('vitamin_small_224', 64, dict(img_size=64)),
    volo=('volo_d1_224', 64, dict(img_size=64)),
    vovnet=('ese_vovnet19b_slim', 64, {}),
    xception=('legacy_xception', 64, {}),
    xception_aligned=('xception41p', 64, {}),
    xcit=('xcit_nano_12_p8_224', 64, {}),
)


def names() -> List[str]:
    """timm's model modules, also those that the table lacks."""
    return sorted({*timm.list_modules(), *MODELS})


def build(name: str) -> Case:
    """The network of one row.

    Raises:
        KeyError: timm has this module, the table does not.
    """
    if name not in MODELS:
        raise KeyError(f'the coverage table has no case for timm.models.{name}'
                       ': add a small variant to tools/coverage/'
                       'timm_models.py')
    variant, side, arguments = MODELS[name]
    note = ', '.join(f'{k}={v}' for k, v in arguments.items())
    return Case(
        timm.create_model(variant, **arguments),
        images(side),
        note=f'`{variant}`' + f' ({note})' * bool(note))
