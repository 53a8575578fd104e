# Copyright (c) dms_razor contributors. All rights reserved.
"""Hugging Face's Trainer: search, train what was found, write ONNX.

    python examples/loop_transformers.py [--short] [--out FOLDER]

A small vision transformer. Decoders that ``from_pretrained`` loads afterwards
are searched by prune_language_model.py.
"""
from _digits import arguments, make_data
from transformers import (Trainer, TrainingArguments, ViTConfig,
                          ViTForImageClassification, set_seed)

from dms_razor import Search

BATCH = 32
NETWORK = dict(
    image_size=8,
    patch_size=2,
    num_channels=1,
    hidden_size=32,
    intermediate_size=64,
    num_attention_heads=4,
    num_hidden_layers=4,
    num_labels=10)


class SearchTrainer(Trainer):
    """The loss of every training step goes through a search."""

    def __init__(self, *args, search=None, **settings):
        super().__init__(*args, **settings)
        self.search = search

    def compute_loss(self, model, inputs, return_outputs=False, **settings):
        loss, outputs = super().compute_loss(model, inputs, True, **settings)
        if self.search is not None and model.training:
            loss = self.search.loss(loss)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, *args):
        optimizer = super().create_optimizer(*args)
        if self.search is not None:
            self.search.attach(optimizer)
        return optimizer


def main():
    args = arguments(__doc__, 'loop_transformers', epochs=40)
    set_seed(0)
    data, test = ([
        dict(pixel_values=image, labels=label) for image, label in part
    ] for part in make_data())
    settings = TrainingArguments(
        args.out,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=BATCH,
        learning_rate=2e-3,
        lr_scheduler_type='cosine',
        warmup_steps=20,
        logging_strategy='epoch',
        save_strategy='no',
        report_to='none')
    model = ViTForImageClassification(ViTConfig(**NETWORK))
    epoch = -(-len(data) // BATCH)
    last = max(1, args.epochs // 10)  # in which only widths move
    search = Search(
        model,
        dict(pixel_values=data[0]['pixel_values'][None]),
        target='50%',
        total_steps=(args.epochs - last) * epoch,
        width_only_steps=last * epoch)
    SearchTrainer(model, settings, train_dataset=data, search=search).train()
    export = search.export(args.out / 'subnet')
    trainer = Trainer(export.model, settings, train_dataset=data)
    trainer.train()
    found = trainer.predict(test)
    right = found.predictions.argmax(1) == found.label_ids
    print(export)
    print(f'accuracy {right.mean():.1%}, {export.onnx()}')


if __name__ == '__main__':
    main()
