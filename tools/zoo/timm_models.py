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

#: Module of ``timm.models`` -> variant that runs as it is on small images.
PLAIN: Dict[str, str] = dict(
    byobnet='gernet_s',
    convmixer='convmixer_768_32',
    convnext='convnext_atto',
    cpubone='cpubone_nano',
    crossvit='crossvit_tiny_240',
    csatv2='csatv2',
    cspnet='cs3darknet_focus_s',
    cspnext='cspnext_tiny',
    davit='davit_tiny',
    densenet='densenet121',
    dla='dla46x_c',
    dpn='dpn48b',
    edgenext='edgenext_xx_small',
    efficientnet='efficientnet_b0',
    efficientvim='efficientvim_m1',
    efficientvit_mit='efficientvit_b0',
    efficientvit_msra='efficientvit_m0',
    fasternet='fasternet_t0',
    fastvit='fastvit_t8',
    focalnet='focalnet_tiny_srf',
    ghostnet='ghostnet_050',
    hardcorenas='hardcorenas_b',
    hgnet='hgnetv2_b0',
    hrnet='hrnet_w18_small',
    iformer='iformer_t',
    inception_next='inception_next_atto',
    lcnetv2='lcnetv2_small',
    lowformer='lowformer_b0',
    mambaout='mambaout_femto',
    metaformer='poolformer_s12',
    mobilenetv3='mobilenetv3_small_050',
    mobilenetv5='mobilenetv5_base',
    mobilevit='mobilevit_xxs',
    mvitv2='mvitv2_tiny',
    nasnet='nasnetalarge',
    nextvit='nextvit_small',
    nfnet='nf_resnet26',
    pnasnet='pnasnet5large',
    pvt_v2='pvt_v2_b0',
    rdnet='rdnet_tiny',
    regnet='regnetx_002',
    repghost='repghostnet_050',
    repvit='repvit_m1',
    res2net='res2next50',
    resnest='resnest14d',
    resnet='resnet18',
    resnetv2='resnetv2_18',
    rexnet='rexnet_100',
    selecsls='selecsls42',
    senet='legacy_seresnet18',
    sequencer='sequencer2d_s',
    shvit='shvit_s1',
    sknet='skresnet18',
    starnet='starnet_s050',
    swiftformer='swiftformer_xs',
    tiny_vit='tiny_vit_5m_224',
    tresnet='tresnet_m',
    twins='twins_svt_small',
    vgg='vgg11',
    vovnet='ese_vovnet19b_slim',
    xception='legacy_xception',
    xception_aligned='xception41p',
    xcit='xcit_nano_12_p8_224',
)
#: The same, told the size of its images.
SIZED: Dict[str, str] = dict(
    byoanet='eca_botnext26ts_256',
    cait='cait_xxs24_224',
    coat='coat_tiny',
    convit='convit_tiny',
    deit='deit_tiny_patch16_224',
    efficientformer_v2='efficientformerv2_s0',
    gcvit='gcvit_xxtiny',
    hiera='hiera_tiny_224',
    levit='levit_128s',
    maxxvit='maxvit_pico_rw_256',
    mlp_mixer='gmlp_ti16_224',
    nest='nest_tiny',
    pit='pit_ti_224',
    swin_transformer='swin_tiny_patch4_window7_224',
    swin_transformer_v2='swinv2_tiny_window16_256',
    swin_transformer_v2_cr='swinv2_cr_tiny_224',
    tnt='tnt_s_legacy_patch16_224',
    visformer='visformer_tiny',
    vision_transformer='vit_tiny_patch16_224',
    vision_transformer_hybrid='vit_tiny_r_s16_p8_224',
    vitamin='vitamin_small_224',
    volo='volo_d1_224',
)
#: Variant, side of the image, arguments.
OTHERS: Dict[str, Tuple[str, int, Dict[str, Any]]] = dict(
    beit=('beit_base_patch16_224', 64,
          dict(depth=4, embed_dim=192, num_heads=3, img_size=64)),
    deepseek_vit=('deepseek_vit_412m', 84,
                  dict(depth=4, embed_dim=192, num_heads=4, num_classes=10)),
    efficientformer=('efficientformer_l1', 224, {}),
    eva=('vit_tiny_patch16_dinov3_qkvb', 64, dict(num_classes=10)),
    gemma4_vit=('gemma4_vit_167m', 96,
                dict(
                    depth=4,
                    embed_dim=192,
                    num_heads=3,
                    intermediate_size=384,
                    num_classes=10)),
    hieradet_sam2=('sam2_hiera_tiny', 64, dict(num_classes=10)),
    inception_resnet_v2=('inception_resnet_v2', 96, {}),
    inception_v3=('inception_v3', 96, {}),
    inception_v4=('inception_v4', 96, {}),
    naflexvit=('naflexvit_base_patch16_parfac_gap', 64,
               dict(depth=4, embed_dim=192, num_heads=3)),
    qwen3_vit=('qwen3_vit_88m', 64,
               dict(depth=4, embed_dim=192, num_heads=4, num_classes=10)),
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
)

MODELS: Dict[str, Tuple[str, int, Dict[str, Any]]] = {
    **{
        name: (variant, 64, {})
        for name, variant in PLAIN.items()
    },
    **{
        name: (variant, 64, dict(img_size=64))
        for name, variant in SIZED.items()
    },
    **OTHERS
}


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
                       ': add a small variant to tools/zoo/'
                       'timm_models.py')
    variant, side, arguments = MODELS[name]
    note = ', '.join(f'{k}={v}' for k, v in arguments.items())
    return Case(
        timm.create_model(variant, **arguments),
        images(side),
        note=f'`{variant}`' + f' ({note})' * bool(note))
