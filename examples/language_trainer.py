# Copyright (c) dms_razor contributors. All rights reserved.
"""A language model in Hugging Face's Trainer: search, then finetune.

    python examples/language_trainer.py MODEL TRAIN.txt OUT --target 80%
    python examples/language_trainer.py OUT/hf TRAIN.txt FINAL --teacher MODEL

The first line searches and writes OUT/hf, the second finetunes what is there,
towards the original. On several GPUs ``torchrun --nproc_per_node 8`` stands in
the place of ``python``. Needs ``pip install dms_razor[llm] accelerate``.
"""
import argparse
from pathlib import Path

import torch
from transformers import (AutoModelForCausalLM, AutoTokenizer, Trainer,
                          TrainingArguments, set_seed)

from dms_razor import Search
from dms_razor.llm import Distillation, TrainerMixin, blocks_of, write_folder


class SearchTrainer(TrainerMixin, Trainer):
    """Hugging Face's, with ``search`` and ``distil``."""


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('model', help='folder or name on the hub')
    parser.add_argument('text', help='text file to train on')
    parser.add_argument('out', type=Path)
    parser.add_argument('--target', help='of a search: share of parameters')
    parser.add_argument('--layers', default='free', help="or 'tied'")
    parser.add_argument('--teacher', help='the original; MODEL in a search')
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--length', type=int, default=64)
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--lr', type=float, default=5e-4)
    return parser.parse_args()


def main():
    args = arguments()
    set_seed(0)
    settings = TrainingArguments(
        str(args.out / 'trainer'),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.lr,
        lr_scheduler_type='linear' if args.target is None else 'constant',
        use_cpu=not torch.cuda.is_available(),  # else each rank is alone
        save_strategy='no',
        report_to='none')
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model, teacher = (
        AutoModelForCausalLM.from_pretrained(name)
        for name in (args.model, args.teacher or args.model))
    blocks = blocks_of(tokenizer, Path(args.text).read_text(), args.length)
    search = None if args.target is None else Search(
        model,
        dict(input_ids=blocks[:1]),
        args.target,
        metric='params',
        layers=args.layers,
        depth=False,
        units={'model.embed_tokens': dict(fixed=True)})
    trainer = SearchTrainer(
        model,
        settings,
        train_dataset=[dict(input_ids=row, labels=row) for row in blocks],
        search=search,
        distil=Distillation(teacher=teacher.to(settings.device)))
    trainer.train()
    if trainer.is_world_process_zero():
        found = model if search is None else search.export(args.out / 'subnet')
        told = write_folder(found, args.out / 'hf', tokenizer)
        print(f'{args.out / "hf"}: {told["class"]} of '
              f'{told["parameters"]:,} parameters')
    trainer.accelerator.end_training()


if __name__ == '__main__':
    main()
