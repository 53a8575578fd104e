# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks of Hugging Face's transformers, from small configs.

Nothing is downloaded: a config builds the network with random weights.
"""
from typing import Any, Callable, Dict, List, Tuple

import torch

from dms_razor.compat.shims import torchvision_schemas

torchvision_schemas()

import transformers  # noqa: E402  isort: skip

from .case import Case  # noqa: E402  isort: skip

PACKAGES = ('transformers', )
WORDS = 99


def words(samples: int, seed: int, types: bool = False) -> Dict[str, Any]:
    """Sentences of 12 words, the last three of them padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, WORDS, (samples, 12), generator=generator)
    mask = torch.ones(samples, 12, dtype=torch.long)
    ids[:, 9:], mask[:, 9:] = 1, 0
    return dict(input_ids=ids, attention_mask=mask)


def pixels(side: int) -> Callable:
    """``batch`` of a vision network."""

    def batch(samples: int, seed: int) -> Dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        return dict(
            pixel_values=torch.randn(
                samples, 3, side, side, generator=generator))

    return batch


def sound(*shape: int) -> Callable:
    """``batch`` of a network that hears: samples or a spectrogram."""

    def batch(samples: int, seed: int) -> Dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        return dict(
            input_values=torch.randn(samples, *shape, generator=generator))

    return batch


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

#: Family -> (network, config, arguments of the config, inputs).
MODELS: Dict[str, Tuple[str, str, Dict[str, Any], Callable]] = {
    'BERT': ('BertForSequenceClassification', 'BertConfig', _TEXT, words),
    'RoBERTa':
    ('RobertaForSequenceClassification', 'RobertaConfig', _TEXT, words),
    'DistilBERT': ('DistilBertForSequenceClassification', 'DistilBertConfig',
                   dict(
                       vocab_size=WORDS,
                       dim=48,
                       n_layers=3,
                       n_heads=4,
                       hidden_dim=96,
                       max_position_embeddings=40,
                       num_labels=5), words),
    'DeBERTa':
    ('DebertaForSequenceClassification', 'DebertaConfig',
     dict(_TEXT, relative_attention=True, pos_att_type=['p2c', 'c2p']), words),
    'DeBERTa-v2': ('DebertaV2ForSequenceClassification', 'DebertaV2Config',
                   dict(
                       _TEXT,
                       relative_attention=True,
                       position_buckets=8,
                       norm_rel_ebd='layer_norm',
                       share_att_key=True,
                       pos_att_type=['p2c', 'c2p']), words),
    'ViT': ('ViTForImageClassification', 'ViTConfig', _IMAGE, pixels(32)),
    'DINOv2': ('Dinov2ForImageClassification', 'Dinov2Config', {
        k: v
        for k, v in _IMAGE.items() if k != 'intermediate_size'
    }, pixels(32)),
    'Swin': ('SwinForImageClassification', 'SwinConfig',
             dict(
                 image_size=64,
                 patch_size=4,
                 embed_dim=24,
                 depths=[2, 2],
                 num_heads=[2, 4],
                 window_size=4,
                 num_labels=5), pixels(64)),
    'ConvNeXt':
    ('ConvNextForImageClassification', 'ConvNextConfig',
     dict(hidden_sizes=[16, 24, 32, 48], depths=[2, 2, 2, 2],
          num_labels=5), pixels(64)),
    'SegFormer': ('SegformerForSemanticSegmentation', 'SegformerConfig',
                  dict(
                      hidden_sizes=[16, 32, 48, 64],
                      num_attention_heads=[1, 2, 3, 4],
                      depths=[2, 2, 2, 2],
                      decoder_hidden_size=32,
                      num_labels=5), pixels(64)),
    'CLIP vision': ('CLIPVisionModelWithProjection', 'CLIPVisionConfig',
                    dict(_IMAGE, projection_dim=16), pixels(32)),
    'Wav2Vec2': ('Wav2Vec2ForSequenceClassification', 'Wav2Vec2Config',
                 dict(
                     _TEXT,
                     conv_dim=[16] * 4,
                     conv_kernel=[10, 3, 3, 2],
                     conv_stride=[5, 2, 2, 2],
                     num_conv_pos_embeddings=16,
                     num_conv_pos_embedding_groups=4,
                     classifier_proj_size=24,
                     apply_spec_augment=False), sound(1600)),
    'AST': ('ASTForAudioClassification', 'ASTConfig',
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
    name: (getattr(transformers, network), getattr(transformers, config))
    for name, (network, config, _, _) in MODELS.items()
}


def names() -> List[str]:
    """All of them, in the order of the table."""
    return list(MODELS)


def build(name: str) -> Case:
    """The network of one row.

    Raises:
        KeyError: The table has no such network.
    """
    made, config = _CLASSES[name]
    _, _, arguments, batch = MODELS[name]
    return Case(made(config(**arguments)), batch, note=f'`{made.__name__}`')
