# Copyright (c) dms_razor contributors. All rights reserved.
"""Mixtures of experts of Hugging Face, searched, written and loaded."""
import copy
import json

import pytest
import torch
from equality import assert_counts, difference, keeps
from hf_nets import WORDS, exported, language, loaded_elsewhere

from dms_razor.llm import FamilyError, write_folder, write_gguf
from dms_razor.proof.precision import double_precision
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace

transformers = pytest.importorskip('transformers', exc_type=ImportError)

QWEN = dict(
    num_experts=6,
    num_experts_per_tok=2,
    moe_intermediate_size=24,
    norm_topk_prob=True)
FAMILIES = {
    'Mixtral':
    dict(num_local_experts=6, intermediate_size=24),
    'Qwen2Moe':
    dict(shared_expert_intermediate_size=16, **QWEN),
    'Qwen3Moe':
    QWEN,
    'Olmoe':
    dict(
        num_experts=6,
        num_experts_per_tok=2,
        intermediate_size=24,
        eos_token_id=1),
}
WAYS = ('eager', 'batched_mm', 'grouped_mm')


def mixture(family, **settings):
    """Weights so large that every layer counts and experts differ."""
    model = language(family, **{**FAMILIES[family], **settings})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(
                    torch.randn(parameter.shape) / parameter.shape[-1]**.5)
    return model


def logits(model, words=WORDS):
    with torch.no_grad():
        return model.eval()(words, use_cache=False).logits


def run(model, words):
    return model(input_ids=words, use_cache=False).logits


@pytest.mark.parametrize('family', FAMILIES)
def test_all_kinds_are_found_and_exports_are_equal(family):
    """In float64, as each implementation computes it; and the count."""
    model = mixture(family)
    space = trace(model, dict(input_ids=WORDS))
    units = {(unit.name, unit.kind, unit.channels) for unit in space.units}
    for layer in range(3):
        mlp = f'model.layers.{layer}.mlp'
        assert (f'{mlp}.experts', 'width', 24) in units
        assert (f'{mlp}.gate.experts', 'experts', 6) in units
        assert (f'model.layers.{layer}.self_attn.heads', 'heads', 2) in units
    assert ('model.embed_tokens', 'width', 32) in units
    assert ('model.layers', 'depth', 3) in units
    assert space.proof.precision == 'float64' and not space.proof.unproved
    subnets = keeps(space, 3)
    for way in WAYS:
        model.set_experts_implementation(way)
        double = copy.deepcopy(model).double()
        for keep in subnets:
            # RMSNorm and routers cast to float32 by name.
            with double_precision():
                assert difference(double, space, keep, WORDS, run) < 1e-12
        assert_counts(
            slice_model(model, space, subnets[-1]), space, subnets[-1], WORDS,
            run)


def test_scores_that_are_returned_keep_their_experts():
    """A loss that balances experts has the scores of all."""
    model = mixture('Mixtral')
    model.config.output_router_logits = True
    space = trace(model, dict(input_ids=WORDS))
    assert not any(unit.kind == 'experts' for unit in space.units)
    assert sum(unit.name.endswith('.experts') for unit in space.units) == 3


@pytest.mark.parametrize('family', ['Mixtral', 'Qwen2Moe', 'Qwen3Moe'])
def test_layers_of_their_own_sizes(family, tmp_path):
    """One of Qwen's layers has no experts."""
    own = {} if family == 'Mixtral' else dict(mlp_only_layers=[1])
    export = exported(mixture(family, **own), tmp_path / 'subnet', '45%')
    told = write_folder(export, tmp_path / 'hf')
    assert told['difference'] < 1e-6 and not told['alike']
    assert told['class'] == f'Sized{family}ForCausalLM'
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    assert sum(p.numel() for p in model.parameters()) == told['parameters']
    for layer, sizes in zip(model.model.layers, told['sizes']):
        if hasattr(layer.mlp, 'experts'):
            number, _, width = layer.mlp.experts.down_proj.shape
            assert {number, width} <= set(sizes.values())
            assert layer.mlp.experts.config is model.config
    model.save_pretrained(tmp_path / 'again')
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path /
                                                              'again')
    assert torch.equal(logits(model), logits(again))


@pytest.mark.parametrize('how', ['ours', 'code', 'plain'])
def test_loaded_in_a_new_process(how, tmp_path):
    settings = dict(layers='tied', depth=False) if how == 'plain' else {}
    units = {'*.gate.experts': dict(choices=[4])}
    export = exported(
        mixture('Mixtral'),
        tmp_path / 'subnet',
        '55%',
        units=units,
        **settings)
    told = write_folder(export, tmp_path / 'hf', code=how == 'code')
    assert {one['num_local_experts'] for one in told['sizes']} == {4}
    found_kind, found, cached, uncached = loaded_elsewhere(
        tmp_path / 'hf', how)
    kind = 'MixtralForCausalLM' if how == 'plain' else \
        'SizedMixtralForCausalLM'
    assert found_kind == kind == told['class']
    expected = logits(export.model)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    assert torch.equal(cached, uncached)
    assert torch.equal(
        cached,
        export.model.generate(
            WORDS, max_new_tokens=6, do_sample=False, use_cache=False))
    config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
    assert config['num_local_experts'] == 4
    assert config['num_experts_per_tok'] == 2


def test_steps_of_a_search_in_every_way_experts_run(tmp_path):
    """The same gradients of the masks, also in low precision."""
    found = {}
    for way in WAYS:
        model = mixture('Mixtral')
        model.set_experts_implementation(way)
        export = exported(model, tmp_path / way, '60%')
        found[way] = [
            unit['kept'] for unit in export.report.to_dict()['units']
        ]
    assert found['eager'] == found['batched_mm'] == found['grouped_mm']
    with torch.autocast('cpu', torch.bfloat16):
        exported(mixture('Mixtral'), tmp_path / 'low', '60%')


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(FamilyError, match='OlmoeForCausalLM cannot be'):
        write_folder(mixture('Olmoe'), tmp_path / 'hf')
    with pytest.raises(FamilyError, match='llama, mistral, qwen2'):
        write_gguf(mixture('Mixtral'), tmp_path / 'a.gguf')
