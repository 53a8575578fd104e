# Copyright (c) dms_razor contributors. All rights reserved.
"""Hugging Face's Trainer against a loop that is written out."""
import copy

import pytest
import torch

from dms_razor import Search
from dms_razor.llm import Distillation, TrainerMixin

transformers = pytest.importorskip('transformers', exc_type=ImportError)
pytest.importorskip(
    'accelerate', reason='the Trainer of transformers needs accelerate')


class SearchTrainer(TrainerMixin, transformers.Trainer):
    pass


def language():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=31,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2)).double()


def data():
    words = torch.randint(
        0, 31, (24, 6), generator=torch.Generator().manual_seed(0))
    return [dict(input_ids=row, labels=row) for row in words]


def settings(folder, **more):
    return transformers.TrainingArguments(
        str(folder), **{
            **dict(
                per_device_train_batch_size=4,
                gradient_accumulation_steps=2,
                num_train_epochs=2,
                learning_rate=1e-2,
                lr_scheduler_type='constant',
                optim='sgd',
                max_grad_norm=1e9,
                save_strategy='no',
                logging_strategy='no',
                report_to='none',
                disable_tqdm=True,
                use_cpu=True),
            **more
        })


def search_of(model, **length):
    return Search(
        model,
        dict(input_ids=data()[0]['input_ids'][None]),
        '70%',
        metric='params',
        **length)


class InOrder(SearchTrainer):
    """Batches come in the order of the data."""

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def test_it_is_the_loop_written_out(tmp_path):
    model, teacher = language(), language()
    search = search_of(model)
    trainer = InOrder(
        model,
        settings(tmp_path),
        train_dataset=data(),
        search=search,
        distil=Distillation(teacher=teacher))
    trainer.train()
    assert search.total_steps == search.step_count == 6
    other = language()
    expected = search_of(other, total_steps=6)
    distil = Distillation(teacher=teacher)
    optimizer = torch.optim.SGD(other.parameters(), 1e-2)
    expected.attach(optimizer)
    other.train()
    rows = torch.stack([row['input_ids'] for row in data()]).view(3, 2, 4, 6)
    for step in (*rows, *rows):
        for part in step:
            batch = dict(input_ids=part, labels=part)
            out = other(**batch)
            loss = expected.loss(out.loss + distil(out.logits, batch))
            (loss / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert expected.bank.ratios.max() > .05
    assert torch.allclose(search.bank.ratios, expected.bank.ratios, atol=1e-9)
    assert torch.allclose(
        model.model.layers[0].mlp.up_proj._parameters['weight'],
        other.model.layers[0].mlp.up_proj._parameters['weight'])


def test_a_search_goes_on_where_the_training_does(tmp_path):
    ratios = []
    for stop in (False, True):
        model = language()
        search = search_of(model)
        given = dict(train_dataset=data(), search=search)
        folder = tmp_path / f'run{stop}'
        kept = dict(save_strategy='steps', save_steps=3)
        InOrder(model, settings(folder, **kept), **given).train()
        if stop:
            model = language()
            search = search_of(model)
            InOrder(
                model,
                settings(folder, **kept),
                train_dataset=data(),
                search=search).train(
                    resume_from_checkpoint=str(folder / 'checkpoint-3'))
        ratios.append(search.bank.ratios)
        (folder / 'checkpoint-3' / 'search.pt').unlink()
    assert torch.allclose(*ratios, atol=1e-9)
    with pytest.raises(FileNotFoundError, match='search.pt is not there'):
        model = language()
        InOrder(
            model,
            settings(folder, **kept),
            train_dataset=data(),
            search=search_of(model)).train(
                resume_from_checkpoint=str(folder / 'checkpoint-3'))


def test_without_a_search_it_is_a_trainer(tmp_path):
    weights = []
    for kind in (SearchTrainer, transformers.Trainer):
        model = language()
        kind(
            model,
            settings(tmp_path, gradient_accumulation_steps=1),
            train_dataset=data()).train()
        weights.append(copy.deepcopy(model.state_dict()))
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name]), name
