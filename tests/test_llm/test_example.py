# Copyright (c) dms_razor contributors. All rights reserved.
"""Examples and tools for language models, from start to end."""
import json
import re
import runpy

import pytest

import dms_razor.llm

transformers = pytest.importorskip('transformers', exc_type=ImportError)


def test_the_page_runs(tmp_path, repo, monkeypatch):
    """docs/en/language_models.md, on a network of random numbers."""
    import torch
    page = (repo / 'docs' / 'en' / 'language_models.md').read_text()
    search, load = re.findall(r'```python\n(.*?)```', page, re.S)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=30,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4))
    model.save_pretrained('model')
    words = torch.arange(16).view(2, 8)
    exec(
        search,
        dict(
            name='model',
            words=words,
            tokenizer=None,
            loader=[dict(input_ids=words, labels=words)] * 3))
    names = {}
    exec(load, names)
    assert names['model'].config.num_hidden_layers == 2


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script as from the command line; what it printed."""

    def call(script, *args):
        monkeypatch.setattr('sys.argv', [*map(str, (script, *args))])
        monkeypatch.syspath_prepend(str(script.parent))
        runpy.run_path(str(script), run_name='__main__')
        return capsys.readouterr().out

    return call


def parameters(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def test_it_ends_with_a_table_and_a_folder(language, tmp_path, repo, run):
    out = run(repo / 'examples' / 'prune_language_model.py', language,
              language / 'text.txt', language / 'text.txt', tmp_path / 'out',
              '--steps', 20, '--finetune', 10, '--length', 16)
    rows = [
        line.split(' | ') for line in out.splitlines() if line.startswith('| ')
    ][2:]
    assert [row[0] for row in rows
            ] == ['| original', '| narrowed evenly', '| searched']
    sizes = [int(row[1].replace(',', '')) for row in rows]
    assert sizes[1] <= .8 * sizes[0] and .79 * sizes[0] < sizes[2]
    assert sizes[2] <= .8 * sizes[0]
    assert parameters(tmp_path / 'out' / 'hf') == sizes[2]
    assert dms_razor.llm.FamilyError


def test_the_trainer_searches_and_finetunes(language, tmp_path, repo, run):
    """With one ratio for all layers: a plain Llama, or Mistral, comes out."""
    pytest.importorskip('accelerate', reason='the Trainer needs accelerate')
    script, text = repo / 'examples' / 'language_trainer.py', language / \
        'text.txt'
    common = '--steps', 8, '--length', 16, '--batch-size', 4
    out = run(script, language, text, tmp_path / 'a', '--target', '80%',
              '--layers', 'tied', *common)
    whole, size = parameters(language), parameters(tmp_path / 'a' / 'hf')
    assert .7 * whole < size <= .8 * whole
    assert f'ForCausalLM of {size:,} parameters' in out and 'Sized' not in out
    run(script, tmp_path / 'a' / 'hf', text, tmp_path / 'b', '--teacher',
        language, *common)
    assert parameters(tmp_path / 'b' / 'hf') == size


def test_accelerate_searches_beneath_adapters(language, tmp_path, repo, run):
    pytest.importorskip('accelerate', reason='a recipe of accelerate')
    pytest.importorskip('peft', reason='a recipe of PEFT')
    run(repo / 'examples' / 'language_accelerate.py', language,
        language / 'text.txt', tmp_path / 'out', '--steps', 8, '--length', 16,
        '--batch-size', 4)
    whole, size = parameters(language), parameters(tmp_path / 'out' / 'hf')
    assert .79 * whole < size <= .8 * whole


def test_the_table_goes_on_where_it_was(language, tmp_path, repo, run):
    """What is there is not run again; other settings are refused."""
    script, out = repo / 'tools' / 'language_table.py', tmp_path / 'out'
    command = [
        script, language, out, '--train', language / 'text.txt', '--test',
        f'text={language / "text.txt"}', '--adapt', 4, '--steps', 4,
        '--finetune', 4, '--length', 16, '--batch-size', 4, '--scored', 2
    ]
    run(*command, '--seeds', 0, '--rows', 'searched', 'uniform')
    before = json.loads((out / 'results.json').read_text())
    assert set(before['results']) == {'original/0', 'searched/0', 'uniform/0'}
    before['results']['searched/0']['ppl text'] = 1.  # as if it had been so
    (out / 'results.json').write_text(json.dumps(before))
    printed = run(*command, '--seeds', 0, 1, '--rows', 'searched', 'uniform',
                  'taylor', 'random')
    after = json.loads((out / 'results.json').read_text())['results']
    assert after['searched/0'] == before['results']['searched/0']
    assert len(after) == 9
    whole = after['original/0']['parameters']
    for name, found in after.items():
        assert name == 'original/0' or .7 * whole < found['parameters'] <= \
            .8 * whole
        assert found['ppl text'] >= 1
        assert name == 'original/0' or found['cut text'] >= 1
    differ = [
        after[f'searched/{s}']['ppl text'] - after[f'random/{s}']['ppl text']
        for s in (0, 1)
    ]
    error = abs(differ[0] - differ[1]) / 2  # of a mean of two
    row = next(x for x in printed.splitlines() if x.startswith('| random'))
    assert f'({sum(differ) / 2:+.2f} ± {error:.2f})' in row
    with pytest.raises(SystemExit, match='of other settings'):
        run(*command, '--seeds', 0, '--lr', .1)
    # A file of a version without one of the settings: as it is by default.
    before['settings'].pop('search_lr')
    before['settings'].pop('fresh')
    (out / 'results.json').write_text(json.dumps(before))
    run(*command, '--seeds', 0, '--rows', 'searched', '--fresh')
    with pytest.raises(SystemExit, match='of other settings'):
        run(*command, '--seeds', 0, '--search-lr', .1, '--fresh')
    with pytest.raises(SystemExit, match='of other settings'):
        run(*command, '--seeds', 0)


def test_a_task_without_right_answers_is_refused_first(language, tmp_path,
                                                       repo, run, monkeypatch):
    lm_eval = pytest.importorskip('lm_eval.tasks', reason='asks the tasks')
    (tmp_path / 'a.jsonl').write_text(
        json.dumps(dict(query='w1', choices=['w2', 'w3'], gold=0)))
    known = lm_eval.get_task_dict

    def scoreless(names, manager):
        found = known(names, manager)
        for task in found.values():
            monkeypatch.setattr(task, 'aggregation', lambda: dict(bleu=0))
        return found

    monkeypatch.setattr(lm_eval, 'get_task_dict', scoreless)
    out = tmp_path / 'out'
    with pytest.raises(SystemExit, match='a: no share of right answers'):
        run(repo / 'tools' / 'language_table.py', language, out, '--train',
            language / 'text.txt', '--length', 16, '--choices',
            f'a={tmp_path / "a.jsonl"}')
    assert not (out / 'adapted.pt').exists(), 'before anything is trained'


def test_a_step_is_timed(language, tmp_path, repo, run):
    """How fast it is, is not tested; adapters need the package peft."""
    printed = run(repo / 'tools' / 'benchmark_language.py', '--hidden', 64,
                  '--layers', 2, '--words', 30, '--batch', 1, '--length', 8,
                  '--rounds', 1, '--warmup', 0, '--json',
                  tmp_path / 'found.json')
    found = json.loads((tmp_path / 'found.json').read_text())
    assert set(found) >= {'weights', 'rest', 'checkpointing'}
    assert all(f'{mode} ' in printed for mode in found)
    for one in found.values():
        assert one['ratio'] > 0 and one['kept'] >= 1


def test_tasks_are_asked_by_the_harness(language, tmp_path, repo, run):
    """As many right answers as the likelihoods worked out here say."""
    pytest.importorskip('lm_eval', reason='asks the tasks')
    asked = [
        dict(query=f'w{n}', choices=['w2', f'w{n + 3}'], gold=n % 2)
        for n in range(4)
    ]
    paired = [
        dict(context_options=[f'w{n} w1', 'w4 w5'], continuation='w2', gold=0)
        for n in range(4)
    ]
    for name, items in (('asked', asked), ('paired', paired)):
        (tmp_path / f'{name}.jsonl').write_text('\n'.join(
            map(json.dumps, items)))
    out = tmp_path / 'out'
    run(repo / 'tools' / 'language_table.py', language, out, '--train',
        language / 'text.txt', '--adapt', 0, '--steps', 4, '--finetune', 4,
        '--length', 16, '--batch-size', 4, '--rows', 'random', '--seeds',
        0, '--choices',
        *(f'{n}={tmp_path / n}.jsonl' for n in ('asked', 'paired')))
    found = json.loads((out / 'results.json').read_text())['results']
    model = transformers.AutoModelForCausalLM.from_pretrained(language)
    tokenizer = transformers.AutoTokenizer.from_pretrained(language)

    def likely(context, end):
        words = tokenizer(f'{context} {end}', return_tensors='pt').input_ids
        scores = model(words).logits[0, :-1].log_softmax(-1)
        return float(scores.gather(1, words[0, 1:, None])[-1])

    right = [
        likely(i['query'], i['choices'][i['gold']]) == max(
            likely(i['query'], choice) for choice in i['choices'])
        for i in asked
    ]
    assert found['original/0']['acc asked'] == 25 * sum(right)
    right = [
        likely(i['context_options'][0], 'w2') > likely('w4 w5', 'w2')
        for i in paired
    ]
    assert found['original/0']['acc paired'] == 25 * sum(right)
    assert 'acc paired' in found['random/0']


def test_a_plan_of_a_large_model(repo, run, tmp_path):
    """Two layers of Llama-7B, of which no weight is made."""
    config = transformers.LlamaConfig(num_hidden_layers=2)
    config.save_pretrained(tmp_path)
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    whole = 2 * 32000 * 4096 + 2 * layer + 4096
    out = run(repo / 'tools' / 'plan_language.py', tmp_path, '--target', '80%',
              '--ranks', 8)
    assert '| heads (…heads) | 2 | 64 |' in out
    assert '| width (…gate_proj) | 2 | 22,016 |' in out
    found = re.search(r'parameters: ([\d,]+); asked ([\d,]+); found ([\d,]+),',
                      out)
    told, asked, size = (int(x.replace(',', '')) for x in found.groups())
    assert told == whole and asked == round(.8 * whole)
    assert .999 * asked <= size <= asked
    assert 'a twin of LlamaForCausalLM' in out
    cells = [float(x) for x in out.splitlines()[-1].split('|')[2:-2]]
    assert cells[:3] == [
        pytest.approx(size * whole / 8 / 2**30, abs=.01) for size in (4, 12, 2)
    ]


def test_a_plan_of_a_mixture_of_experts(repo, run, tmp_path):
    """Proved on a twin in float64, in which grouped products are none."""
    transformers.MixtralConfig(num_hidden_layers=2).save_pretrained(tmp_path)
    out = run(repo / 'tools' / 'plan_language.py', tmp_path, '--target', '70%',
              '--ranks', 8)
    assert '| experts (…experts) | 2 | 16 |' in out
    assert '| width (…experts) | 2 | 3,584 |' in out  # in steps of 8
    layer = 4096 * (4096 * 2 + 1024 * 2 + 8 + 8 * 3 * 14336 + 2)
    found = re.search(r'parameters: ([\d,]+);', out).group(1)
    assert int(found.replace(',', '')) == 2 * layer + 4096 * (64000 + 1)
    assert 'a twin of MixtralForCausalLM' in out
