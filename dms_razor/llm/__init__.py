# Copyright (c) dms_razor contributors. All rights reserved.
"""Language models: folders that Hugging Face loads, and distillation.

An extra, ``pip install dms_razor[llm]``; nothing else imports it. ``import
dms_razor.llm`` makes ``AutoModelForCausalLM.from_pretrained`` know models
whose layers have sizes of their own.
"""
from ..compat.shims import torchvision_schemas

torchvision_schemas()  # transformers imports torchvision  # isort: split

from .distillation import Distillation  # noqa: E402
from .evaluation import blocks_of, perplexity  # noqa: E402
from .folder import FamilyError, register, write_folder  # noqa: E402
from .gguf_file import write_gguf  # noqa: E402
from .trainer import TrainerMixin  # noqa: E402
from .unpacking import dequantise  # noqa: E402

__all__ = [
    'Distillation', 'FamilyError', 'TrainerMixin', 'blocks_of', 'dequantise',
    'perplexity', 'register', 'write_folder', 'write_gguf'
]

register()
