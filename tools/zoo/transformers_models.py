# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks of Hugging Face's transformers, from small configs.

Nothing is downloaded: a config builds the network with random weights.
"""
from typing import Any, Callable, Dict, List, Tuple

import torch

from dms_razor.compat.shims import torchvision_schemas

torchvision_schemas()

import transformers  # noqa: E402  isort: skip

from .case import Case, drawn  # noqa: E402  isort: skip

PACKAGES = ('transformers', )
WORDS = 99


def words(samples: int, seed: int) -> Dict[str, Any]:
    """Sentences of 12 words, the last three of them padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, WORDS, (samples, 12), generator=generator)
    mask = torch.ones(samples, 12, dtype=torch.long)
    ids[:, 9:], mask[:, 9:] = 1, 0
    return dict(input_ids=ids, attention_mask=mask)


def pixels(side: int) -> Callable:
    """``batch`` of a vision network."""
    return drawn(3, side, side, name='pixel_values')


def sound(*shape: int) -> Callable:
    """``batch`` of a network that hears: samples or a spectrogram."""
    return drawn(*shape, name='input_values')


_TEXT = dict(
    vocab_size=WORDS,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=40,
    num_labels=5)
_IMAGE = dict(
    image_size=32,
    patch_size=8,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    num_labels=5)

#: Family -> (network, arguments of its config, inputs).
MODELS: Dict[str, Tuple[str, Dict[str, Any], Callable]] = {
    'BERT': ('BertForSequenceClassification', _TEXT, words),
    'RoBERTa': ('RobertaForSequenceClassification', _TEXT, words),
    'DistilBERT': ('DistilBertForSequenceClassification',
                   dict(
                       vocab_size=WORDS,
                       dim=48,
                       n_layers=3,
                       n_heads=4,
                       hidden_dim=96,
                       max_position_embeddings=40,
                       num_labels=5), words),
    'DeBERTa':
    ('DebertaForSequenceClassification',
     dict(_TEXT, relative_attention=True, pos_att_type=['p2c', 'c2p']), words),
    'DeBERTa-v2': ('DebertaV2ForSequenceClassification',
                   dict(
                       _TEXT,
                       relative_attention=True,
                       position_buckets=8,
                       norm_rel_ebd='layer_norm',
                       share_att_key=True,
                       pos_att_type=['p2c', 'c2p']), words),
    'ViT': ('ViTForImageClassification', _IMAGE, pixels(32)),
    'DINOv2': ('Dinov2ForImageClassification', {
        k: v
        for k, v in _IMAGE.items() if k != 'intermediate_size'
    }, pixels(32)),
    'Swin': ('SwinForImageClassification',
             dict(
                 image_size=64,
                 patch_size=4,
                 embed_dim=24,
                 depths=[2, 2],
                 num_heads=[2, 4],
                 window_size=4,
                 num_labels=5), pixels(64)),
    'ConvNeXt':
    ('ConvNextForImageClassification',
     dict(hidden_sizes=[16, 24, 32, 48], depths=[2, 2, 2, 2],
          num_labels=5), pixels(64)),
    'SegFormer': ('SegformerForSemanticSegmentation',
                  dict(
                      hidden_sizes=[16, 32, 48, 64],
                      num_attention_heads=[1, 2, 3, 4],
                      depths=[2, 2, 2, 2],
                      decoder_hidden_size=32,
                      num_labels=5), pixels(64)),
    'CLIP vision': ('CLIPVisionModelWithProjection',
                    dict(_IMAGE, projection_dim=16), pixels(32)),
    'Wav2Vec2': ('Wav2Vec2ForSequenceClassification',
                 dict(
                     _TEXT,
                     conv_dim=[16] * 4,
                     conv_kernel=[10, 3, 3, 2],
                     conv_stride=[5, 2, 2, 2],
                     num_conv_pos_embeddings=16,
                     num_conv_pos_embedding_groups=4,
                     classifier_proj_size=24,
                     apply_spec_augment=False), sound(1600)),
    'AST': ('ASTForAudioClassification',
            dict(
                hidden_size=48,
                num_hidden_layers=3,
                num_attention_heads=4,
                intermediate_size=96,
                patch_size=8,
                frequency_stride=8,
                time_stride=8,
                num_mel_bins=32,
                max_length=64,
                num_labels=5), sound(64, 32)),
}

# Imported with this module: transformers loads each when it is asked for,
# which takes longer than the network.
_CLASSES = {
    name: getattr(transformers, network)
    for name, (network, _, _) in MODELS.items()
}


def names() -> List[str]:
    """All of them, in the order of the table."""
    return list(MODELS)


def build(name: str) -> Case:
    """The network of one row.

    Raises:
        KeyError: The table has no such network.
    """
    network, (_, arguments, batch) = _CLASSES[name], MODELS[name]
    config = network.config_class(**arguments)
    return Case(network(config), batch, note=f'`{network.__name__}`')
