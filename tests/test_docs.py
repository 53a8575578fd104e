# Copyright (c) dms_razor contributors. All rights reserved.
"""What the pages show is there, and runs."""
import ast
import copy
import importlib.util
import inspect
import re
import textwrap
from pathlib import Path

import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from dms_razor import Search, subnet
from dms_razor.baselines import METHODS
from dms_razor.counting import count_macs
from dms_razor.masking import unmask
from dms_razor.openmmlab.from_config import preflight_of_config

REPO = Path(__file__).resolve().parents[1]
PAGES = [
    *REPO.glob('*.md'), *REPO.glob('docs/en/**/*.md'),
    *REPO.glob('configs/*/README.md')
]


def blocks(path, language):
    """Blocks of code on a page, in a list or not."""
    found = re.findall(rf'^( *)```{language}\n(.*?)^\1```',
                       path.read_text(encoding='utf-8'), re.DOTALL | re.M)
    return [textwrap.dedent(text) for _, text in found]


def python_blocks(page):
    return blocks(REPO / page, 'python')


def named(path):
    return str(path.relative_to(REPO))


class Net(nn.Module):
    """Has the parts that docs/en/plain_python.md names."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.backbone.layer4 = nn.Sequential(nn.ReLU(),
                                             nn.Conv2d(16, 96, 3, padding=1),
                                             nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(96, 128), nn.ReLU(),
                                  nn.Linear(128, 10))

    def forward(self, x):
        return self.head(self.pool(self.backbone(x)))


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the examples take for granted."""
    monkeypatch.chdir(tmp_path)
    model, images = Net(), torch.randn(2, 3, 8, 8)
    return dict(
        torch=torch,
        Search=Search,
        model=model,
        images=images,
        MyNetwork=Net,
        optimizer=torch.optim.SGD(model.parameters(), lr=.1),
        search=Search(model, images[:1], target='50%', total_steps=20))


def test_an_export_takes_statistics_from_a_loader(names):
    model = Net()
    model.pool = nn.Sequential(nn.BatchNorm2d(96), model.pool)
    names['search'] = Search(model, names['images'][:1], total_steps=20)
    names['loader'] = [names['images']]
    exec(python_blocks('docs/en/plain_python.md')[2], names)
    report = Path('subnet/report.md').read_text(encoding='utf-8')
    assert 'BatchNorm statistics are from 1 batches' in report


def test_moments_go_on(names):
    search, model = names['search'], names['model']
    names['optimizer'] = torch.optim.AdamW(model.parameters())
    model(names['images']).sum().backward()
    names['optimizer'].step()
    names['export'] = search.export('subnet', picture=False)
    exec(python_blocks('docs/en/plain_python.md')[1], names)
    states = names['finetune'].state
    assert states.keys() == set(names['export'].model.parameters())
    assert all(x['exp_avg'].shape == p.shape for p, x in states.items())


def test_stop_and_resume(names):
    search = names['search'].attach(names['optimizer'])
    search.loss(names['model'](names['images']).square().mean()).backward()
    names['optimizer'].step()
    ratios = search.bank.ratios.clone()
    code = python_blocks('docs/en/plain_python.md')[3]
    saving, loading = code.split('...\n')
    exec(saving, names)
    search.bank.ratios += .1
    exec(loading, names)
    assert torch.equal(search.bank.ratios, ratios)
    assert search.step_count == 1


def test_patterns(names):
    names['search'].close()
    whole = names['search'].resource.supernet('macs')
    code = python_blocks('docs/en/plain_python.md')[4]
    exec(f"found = {code.replace('2.0G', str(whole / 2))}", names)
    units = {unit.name: unit for unit in names['found'].space.units}
    assert not any('stem' in name for name in units)
    wide, = (unit for name, unit in units.items() if 'layer4' in name)
    assert wide.size == 3, '96 channels in steps of 32'
    hidden, = (unit for name, unit in units.items() if 'head' in name)
    assert hidden.least == 64


@pytest.fixture
def pretrained(names):
    """A network with norms, some batches and a loss."""
    torch.manual_seed(0)
    model = Net()
    model.pool = nn.Sequential(nn.BatchNorm2d(96), model.pool)
    batches = [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(6)]
    return dict(
        names,
        model=model,
        loader=batches,
        epochs=2,
        held_out=batches[:2],
        criterion=nn.functional.cross_entropy)


def shares(model, subnet, images):
    """MACs and parameters of a subnet as shares of its network."""
    macs = [count_macs(net, images).total for net in (subnet, unmask(model))]
    return macs[0] / macs[1]


def test_prune_my_pretrained_network(pretrained):
    before = copy.deepcopy(pretrained['model'])
    exec(python_blocks('docs/en/pipelines.md')[0], pretrained)
    model, subnet = pretrained['model'], pretrained['subnet']
    assert .49 < shares(model, subnet, torch.zeros(1, 3, 8, 8)) <= .5
    # inherited, then finetuned: the weights of the search are near, not equal
    searched = torch.load('subnet/subnet.pth', weights_only=True)
    searched = searched.get('state_dict', searched)
    own = subnet.state_dict()
    for name in searched:
        if name.endswith('.weight'):
            assert not torch.equal(own[name], searched[name])
            torch.testing.assert_close(
                own[name], searched[name], atol=.2, rtol=0)
    assert not torch.equal(model.head[1].weight, before.head[1].weight)


def test_ratios_alone(pretrained):
    before = copy.deepcopy(pretrained['model'])
    exec(python_blocks('docs/en/pipelines.md')[1], pretrained)
    model, subnet = pretrained['model'], pretrained['subnet']
    assert .79 < shares(model, subnet, torch.zeros(1, 3, 8, 8)) <= .8
    assert pretrained['search'].bank.ratios.any()
    for one, other in zip(model.parameters(), before.parameters()):
        assert torch.equal(one, other) and one.grad is None


def test_evolve_as_printed(pretrained):
    code = python_blocks('docs/en/pipelines.md')[2]
    code = code.replace('population=50, generations=20',
                        'population=4, generations=2')
    pretrained['search'] = Search(pretrained['model'],
                                  pretrained['images'][:1])
    exec(code, pretrained)
    found, subnet = pretrained['found'], pretrained['subnet']
    assert found.evaluations == 8
    assert found.best.score == max(c.score for c in sum(found.history, []))
    assert shares(pretrained['model'], subnet, torch.zeros(
        1, 3, 8, 8)) * 2 == pytest.approx(found.best.cost /
                                          pretrained['search'].target)


def test_a_teacher_in_a_config(tmp_path):
    (tmp_path / 'work_dirs/my_search/subnet').mkdir(parents=True)
    (tmp_path / 'work_dirs/my_search/subnet/retrain.py').write_text(
        "model = dict(type='DMSSubModel', cfg=dict(type='A'), subnet='b')")
    (tmp_path / 'mine.py').write_text(python_blocks('docs/en/pipelines.md')[3])
    model = Config.fromfile(tmp_path / 'mine.py').model.to_dict()
    assert model['architecture'] == dict(
        type='DMSSubModel', cfg=dict(type='A'), subnet='b')
    # no argument is missing and none unknown
    inspect.signature(MODELS.get(model.pop('type'))).bind(**model)


def test_a_student_alone(names):
    weights = Net().state_dict()
    both = {f'architecture.{name}': value for name, value in weights.items()}
    both['teacher.weight'] = torch.zeros(2)
    torch.save(dict(meta={}, state_dict=both), 'epoch_15.pth')
    exec(python_blocks('docs/en/pipelines.md')[4], {})
    student = torch.load('student.pth', weights_only=True)
    Net().load_state_dict(student)
    assert all(torch.equal(student[name], weights[name]) for name in weights)


def test_a_teacher_in_plain_python(pretrained):
    teacher, subnet = pretrained['model'].train(), Net()
    pretrained.update(
        teacher=teacher,
        subnet=subnet,
        optimizer=torch.optim.SGD(subnet.parameters(), lr=.1))
    before = copy.deepcopy(teacher.state_dict())
    own = copy.deepcopy(subnet)
    exec(
        python_blocks('docs/en/pipelines.md')[5].replace(
            'tau, weight = 1., 1.', 'tau, weight = 2., 3.'), pretrained)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in teacher.parameters())
    assert not torch.equal(subnet.head[1].weight, own.head[1].weight)
    p = (teacher(pretrained['images']) / 2).softmax(1)
    q = (pretrained['logits'] / 2).softmax(1)
    expected = 3 * 2**2 * (p * (p / q).log()).sum() / len(p)
    expected += pretrained['criterion'](pretrained['logits'],
                                        pretrained['labels'])
    torch.testing.assert_close(pretrained['loss'], expected)


def test_a_subnet_is_built_again(names):
    exported = names['search'].export('subnet').model.eval()
    exec(python_blocks('docs/en/subnet.md')[1], names)
    images = names['images']
    torch.testing.assert_close(names['model'].eval()(images), exported(images))


def test_watched_and_evaluated_as_printed(names, capsys):
    seen, outputs = {}, []
    names['writer'] = lambda scalars, step: seen.update({step: scalars})
    names['evaluate'] = lambda model: outputs.append(model(names['images']))
    search = names['search'].attach(names['optimizer'])
    look, watch = python_blocks('docs/en/settings.md')
    exec(watch, names)
    for _ in range(20):
        search.loss(names['model'](names['images']).square().mean()).backward()
        names['optimizer'].step()
    exec(look, names)
    assert sorted(seen) == [10, 20
                            ] and 'search 20/20' in capsys.readouterr().err
    subnet = search.export('subnet', picture=False).model.eval()
    torch.testing.assert_close(outputs[0], subnet(names['images']))
    plain = search.close().eval()
    torch.testing.assert_close(outputs[1], plain(names['images']))


def test_a_sweep_as_printed(pretrained, capsys):
    trained = []
    pretrained.update(
        train=trained.append, accuracy=lambda model: len(trained) / 10)
    pretrained['search'] = Search(
        pretrained['model'], pretrained['images'][:1], target='40%')
    code, = python_blocks('docs/en/sweep.md')
    exec(code, pretrained)
    assert [point.scores for point in pretrained['found'].points] == [{
        'top-1 (%)':
        score
    } for score in (10., 20., 30.)]
    whole = pretrained['search'].resource.supernet('macs')
    for model, budget in zip(trained, (.75, .5, .4)):
        macs = count_macs(model, torch.zeros(1, 3, 8, 8)).total
        assert .97 * budget < macs / whole <= budget
    assert '| 40% | ' in capsys.readouterr().out


def test_a_subnet_is_deployed(names):
    names['search'].bank.ratios[:] = .3
    exec(python_blocks('docs/en/subnet.md')[2], names)
    names['model'] = names['export'].model
    exec(python_blocks('docs/en/subnet.md')[3], names)
    images = names['images']
    for path in ('subnet/subnet.onnx', 'model.onnx'):
        session = onnxruntime.InferenceSession(
            path, providers=['CPUExecutionProvider'])
        found, = session.run(None, dict(input=images.numpy()))
        torch.testing.assert_close(
            torch.from_numpy(found), names['model'].eval()(images))


def test_the_tutorial_from_photographs_to_a_file(tmp_path, monkeypatch,
                                                 capsys):
    """Its blocks in turn, with shorter trainings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MPLBACKEND', 'agg')
    names = {}
    for code in python_blocks('docs/en/tutorial.md'):
        exec(code.replace('EPOCHS = 12', 'EPOCHS = 2'), names)
    search, subnet = names['search'], names['subnet']
    assert search.step_count == 24 and list(
        names['curves']) == [5, 10, 15, 20, 24]
    macs = count_macs(subnet, names['images'][:1]).total
    assert .97 * search.target < macs <= search.target
    for picture in ('squares.png', 'curves.png', 'subnet/structure.png'):
        assert Path(picture).read_bytes().startswith(b'\x89PNG')
    # none of the test's pixels was trained on
    train, test = names['train_set'].tensors[0], names['images']
    assert (len(train), len(test)) == (600, 400)
    photograph = names['photographs'][names['labels'][0]]
    places = photograph.unfold(1, 24, 1).unfold(2, 24, 1)
    same = (places.permute(1, 2, 0, 3, 4) == test[0]).flatten(2).all(2)
    assert same[:, 430:].any() and not same[:, :430].any()
    told = capsys.readouterr().out.splitlines()[-1]
    told = float(re.fullmatch(r'subnet.onnx: accuracy (.*)%', told).group(1))
    assert told == pytest.approx(100 * names['accuracy'](subnet), abs=.6)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(names['logits']), subnet(test), atol=1e-4, rtol=0)


def test_a_network_is_narrowed(names):
    names['search'].close()
    model = names['model']
    model.pool = nn.Sequential(nn.BatchNorm2d(96), model.pool)
    with torch.no_grad():
        model.pool[0].weight.copy_(torch.linspace(2, 1, 96))
    names['loader'] = [(names['images'], torch.tensor([3, 4]))]
    names['criterion'] = nn.functional.cross_entropy
    first, own = python_blocks('docs/en/baselines.md')
    try:
        for code in (first, own):
            exec(code, names)
            search = names['search']
            cost = search.current(hard=True)
            assert .99 * search.target <= cost <= search.target
    finally:
        METHODS.pop('bn_scale', None)
    macs = count_macs(names['subnet'], names['images'][:1]).total
    assert .99 * search.target <= macs <= search.target
    place = search.space.layout.index('backbone.layer4.1')
    stay = search.space.rows(search.keep())[place][0].tolist()
    assert stay == sorted(stay, reverse=True) and not all(stay)


@pytest.mark.parametrize('page', [
    'README.md', 'docs/en/get_started.md', 'docs/en/search_config.md',
    'configs/retinanet/README.md'
])
def test_configs(page, tmp_path):
    code = next(text for text in python_blocks(page) if '_base_ =' in text)
    (tmp_path / 'mine.py').write_text(code)
    cfg = Config.fromfile(tmp_path / 'mine.py')
    if 'target' in cfg.model and page != 'README.md':
        report = preflight_of_config(cfg)
        assert report.problem is None
        fixed = [item['module'] for item in report.to_dict()['full_width']]
        assert ('backbone.conv1' in fixed) == ('units' in code)


def test_first_config_is_that_of_the_readme(tmp_path):
    configs = []
    for page in ('README.md', 'docs/en/get_started.md'):
        (tmp_path / 'mine.py').write_text(
            next(text for text in python_blocks(page) if '_base_ =' in text))
        configs.append(Config.fromfile(tmp_path / 'mine.py').to_dict())
    assert configs[0] == configs[1]


@pytest.mark.parametrize('page', PAGES, ids=named)
def test_python_is_python(page):
    for code in blocks(page, 'python'):
        code = re.sub(r'{{(.*?)}}', r'\1', code).replace('…', '...')
        try:
            ast.parse(code)
        except SyntaxError:  # arguments of a call
            ast.parse(f'call({code})')


@pytest.mark.parametrize('page', PAGES, ids=named)
def test_commands_name_what_is_there(page):
    for code in blocks(page, 'bash'):
        for path in re.findall(r'\b((?:tools|configs)/[\w./-]+)', code):
            assert (REPO / path).exists(), path
        for tool, rest in re.findall(r'tools/(\w+)\.py((?:[^\n#]|\\\n)*)',
                                     code):
            text = ''.join((REPO / 'tools' / f'{name}.py').read_text()
                           for name in (tool, '_launch'))
            for flag in re.findall(r'--[a-z-]+', rest):
                assert flag in text or flag[2:].replace('-', '_') in text, flag


#: A role of sphinx, with a title of its own or without.
REFERENCE = re.compile(r'\{(?:mod|class|func|meth)\}'
                       r'`(?:[^`<]*<)?~?([\w.]+)>?`')


def found_under(name):
    """The object of this name in a module of this package."""
    module = name
    while not any((REPO / f'{module.replace(".", "/")}{end}').exists()
                  for end in ('.py', '/__init__.py')):
        module = module.rpartition('.')[0]
        assert module, f'{name} is no name of this package'
    value = importlib.import_module(module)
    for part in name[len(module) + 1:].split('.') if name != module else ():
        value = getattr(value, part)
    return value


@pytest.mark.parametrize('page', PAGES, ids=named)
def test_references_lead_somewhere(page):
    text = page.read_text(encoding='utf-8')
    for name in REFERENCE.findall(text):
        assert found_under(name) is not None, name
    for link in re.findall(r'\]\(([^)#:]+)\)', text):
        assert (page.parent / link).exists(), link


def test_every_module_has_its_place_in_the_reference():
    told = [
        module for page in REPO.glob('docs/en/api/*.md')
        for module in re.findall(r'automodule:: ([\w.]+)', page.read_text())
    ]
    ours = {
        path.relative_to(REPO).with_suffix('').as_posix().replace('/', '.')
        for path in (REPO / 'dms_razor').rglob('*.py')
        if path.name not in ('__init__.py', '__main__.py', 'moved.py',
                             'version.py')
    }
    assert sorted(told) == sorted(set(told))
    assert {name
            for name in told
            if name.startswith('dms_razor')} == ours | {'dms_razor.openmmlab'}
    for name in told:
        # Its kernels are decorated by Triton, of CUDA builds of PyTorch.
        if importlib.util.find_spec('triton') or '.fused_' not in name:
            importlib.import_module(name)


def test_what_one_calls_comes_first_and_is_there():
    """Each name of the first page is an object, and Search is the first."""
    page = (REPO / 'docs/en/api/index.md').read_text(encoding='utf-8')
    found = REFERENCE.findall(page)
    assert found[0] == 'dms_razor.search.Search' and len(found) > 40
    assert all(found_under(name).__doc__ for name in found)
    public = set(subnet.__all__) - {'Count', 'SubnetError'}
    assert public <= {name.rpartition('.')[2] for name in found}
