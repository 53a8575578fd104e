# Copyright (c) dms_razor contributors. All rights reserved.
"""Language models: folders that Hugging Face loads, and distillation.

An extra, ``pip install dms_razor[llm]``; nothing else imports it. ``import
dms_razor.llm`` makes ``AutoModelForCausalLM.from_pretrained`` know models
whose layers have sizes of their own.
"""
from .distillation import Distillation
from .folder import FamilyError, register, write_folder

__all__ = ['Distillation', 'FamilyError', 'register', 'write_folder']

register()
