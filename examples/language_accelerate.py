# Copyright (c) dms_razor contributors. All rights reserved.
"""A language model with LoRA in a loop of Accelerate: search, merge, write.

    python examples/language_accelerate.py MODEL TRAIN.txt OUT
    accelerate launch examples/language_accelerate.py MODEL TRAIN.txt OUT

Adapters and ratios train, the weights rest: the model with its adapters and
masks off is the teacher, and there is no second copy. Needs
``pip install dms_razor[llm] accelerate peft``.
"""
import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from dms_razor import Search
from dms_razor.llm import Distillation, blocks_of, write_folder

LAYERS = [f'{name}_proj' for name in 'q k v o gate up down'.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('model', help='folder or name on the hub')
    parser.add_argument('text', help='text file to train on')
    parser.add_argument('out', type=Path)
    parser.add_argument('--target', default='80%', help='of the parameters')
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--length', type=int, default=64)
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--lr', type=float, default=2e-3)
    args = parser.parse_args()
    set_seed(0)
    accelerator = Accelerator(gradient_accumulation_steps=2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    base = AutoModelForCausalLM.from_pretrained(args.model)
    blocks = blocks_of(tokenizer, Path(args.text).read_text(), args.length)
    search = Search(
        base,
        dict(input_ids=blocks[:1]),
        args.target,
        metric='params',
        total_steps=args.steps,
        depth=False,
        units={'model.embed_tokens': dict(fixed=True)})
    lora = LoraConfig(r=8, target_modules=LAYERS, task_type='CAUSAL_LM')
    peft = get_peft_model(base, lora)  # after the search, or before it
    optimizer = torch.optim.AdamW(
        [p for p in peft.parameters() if p.requires_grad], args.lr)
    search.attach(optimizer)
    distil = Distillation(search, adapters=peft)
    loader = torch.utils.data.DataLoader(
        blocks, args.batch_size, shuffle=True, drop_last=True)
    model, optimizer, loader = accelerator.prepare(peft, optimizer, loader)
    model.train()
    while search.step_count < args.steps:
        for words in loader:
            with accelerator.accumulate(model):
                batch = dict(input_ids=words, labels=words)
                out = model(**batch)
                loss = search.loss(out.loss + distil(out.logits, batch))
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if search.step_count == args.steps:
                break
    if accelerator.is_main_process:
        peft.merge_and_unload()
        export = search.export(args.out / 'subnet')
        told = write_folder(export, args.out / 'hf', tokenizer)
        print(f'{args.out / "hf"}: {told["class"]} of '
              f'{told["parameters"]:,} parameters')
    accelerator.end_training()


if __name__ == '__main__':
    main()
