# Copyright (c) dms_razor contributors. All rights reserved.
"""Causal language models of Hugging Face whose layers have sizes of their own.

``config.layer_sizes`` holds, for each layer, the numbers of the configuration
in which it differs: heads, heads of keys and values, width of the feed-forward
network, number of experts. Everything else is the family's own code.

This file stands alone: it may lie in the folder of a model, which is loaded
with ``trust_remote_code=True`` then, without dms_razor.
"""
import copy

try:
    import transformers
except ImportError:  # an extra of dms_razor
    transformers = None

#: Families: model_type -> classes of transformers.
FAMILIES = {
    'llama': ('LlamaConfig', 'LlamaForCausalLM'),
    'mistral': ('MistralConfig', 'MistralForCausalLM'),
    'qwen2': ('Qwen2Config', 'Qwen2ForCausalLM'),
    'qwen3': ('Qwen3Config', 'Qwen3ForCausalLM'),
    'gemma2': ('Gemma2Config', 'Gemma2ForCausalLM'),
    'gemma3_text': ('Gemma3TextConfig', 'Gemma3ForCausalLM'),
    'mixtral': ('MixtralConfig', 'MixtralForCausalLM'),
    'qwen2_moe': ('Qwen2MoeConfig', 'Qwen2MoeForCausalLM'),
    'qwen3_moe': ('Qwen3MoeConfig', 'Qwen3MoeForCausalLM'),
}


class SizedLayers:
    """Mixin in front of a family's class: builds each layer by its sizes."""

    def __init__(self, config):
        super().__init__(config)
        layers = self.model.layers
        for number, sizes in enumerate(config.layer_sizes):
            own = copy.deepcopy(config)
            for name, size in sizes.items():
                setattr(own, name, size)
            layer = type(layers[number])(own, number)
            # How attention and experts are run is set for all at once.
            for part in layer.modules():
                if getattr(part, 'config', None) is own:
                    part.config = config
            layers[number] = layer
        self.post_init()


class SizedConfig:
    """Mixin in front of a family's configuration."""

    def validate(self):
        """Heads need not divide the hidden size: a head has dims of its own.
        """


def _classes(family):
    """The classes of a family, ``(config, model)``."""
    bases = [getattr(transformers, name) for name in FAMILIES[family]]
    config = type(f'Sized{FAMILIES[family][0]}', (SizedConfig, bases[0]),
                  dict(model_type=f'sized_{family}', __module__=__name__))
    model = type(f'Sized{FAMILIES[family][1]}', (SizedLayers, bases[1]),
                 dict(config_class=config, __module__=__name__))
    return config, model


#: model_type -> (config, model), of what the installed transformers has.
SIZED = {
    family: _classes(family)
    for family, names in FAMILIES.items()
    if transformers is not None and hasattr(transformers, names[1])
}
for _pair in SIZED.values():
    globals().update({one.__name__: one for one in _pair})
