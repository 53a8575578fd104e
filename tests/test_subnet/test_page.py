# Copyright (c) dms_razor contributors. All rights reserved.
"""report.html: whole, self-contained, with all that the report says."""
import json
import re
import shutil
import subprocess
import warnings
from html import unescape
from html.parser import HTMLParser

import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.subnet import SubnetError
from dms_razor.subnet.page import write_page
from dms_razor.subnet.summary import EXPLAINED

VOID = ('meta', 'img', 'br', 'hr', 'link', 'input')


class Page(HTMLParser):
    """Checks that every tag is closed; collects text and references."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.links, self.fills = [], [], [], []
        self.lines = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[key] for key in ('src', 'href') if key in attrs]
        for kind, found in (('fill', self.fills), ('even', self.lines)):
            if attrs.get('class') == kind:
                found.append(
                    float(re.search(r':([\d.]+)%', attrs['style'])[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope='module')
def export(tmp_path_factory):
    """What a search of 30 steps has written."""
    search = make_search(plain_net(), target='50%')
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 30)
    return search.export(
        tmp_path_factory.mktemp('page') / 'subnet', scores={'a<b': '97 & 1'})


def test_it_says_what_the_report_says(export):
    html = (export.path / 'report.html').read_text(encoding='utf-8')
    page = Page(html)
    text = ' '.join(' '.join(page.text).split())
    assert export.report.summary() in text
    for note in export.report.notes:
        assert note in text
    for layer in export.report.layers:
        assert layer.name in text
    for doubt in export.report.decision.doubts():
        assert doubt in text
    assert 'a<b 97 & 1' in text, 'escaped in the source, not on the page'
    for name in ('subnet.pth', 'report.json', 'structure.png'):
        assert f'{name} {(export.path / name).stat().st_size:,} ' in text
    assert 'build_subnet' in text and EXPLAINED in text
    assert EXPLAINED in export.report.to_markdown()


def test_what_it_says_comes_next_can_be_done(export, tmp_path, monkeypatch):
    folder = tmp_path / 'subnet'
    shutil.copytree(export.path, folder)
    monkeypatch.chdir(folder)
    page = (folder / 'report.html').read_text(encoding='utf-8')
    code = unescape('\n'.join(re.findall('<pre>(.*?)</pre>', page, re.S)))
    names = dict(YourNetwork=plain_net, images=torch.rand(2, 3, 8, 8))
    exec(code, names)
    torch.testing.assert_close(
        torch.jit.load('subnet.pt')(names['images']),
        export.model.eval()(names['images']))
    assert (folder / 'subnet.onnx').exists()


def test_it_needs_nothing_else(export):
    html = (export.path / 'report.html').read_text(encoding='utf-8')
    links = Page(html).links
    assert links and all(link.startswith('data:') for link in links)
    assert '<script' not in html and 'http://' not in html
    assert 'https://' not in html and '@import' not in html
    assert "default-src 'none'" in html


def test_bars_are_sorted_and_the_even_cut_is_a_line(export):
    page = Page((export.path / 'report.html').read_text(encoding='utf-8'))
    units = export.report.to_dict()['units']
    assert page.fills == pytest.approx(
        sorted(100 * unit['kept'] / unit['total'] for unit in units), abs=.06)
    widths = [unit for unit in units if unit['kind'] != 'depth']
    assert page.lines == pytest.approx(
        [100 * export.report.even] * len(widths), abs=.06)


def test_a_score_is_added_later(tmp_path, export):
    folder = tmp_path / 'subnet'
    shutil.copytree(export.path, folder)
    assert write_page(folder, {'top-1 (%)': 12.5}) == folder / 'report.html'
    report = json.loads((folder / 'report.json').read_text())
    assert report['scores'] == {'a<b': '97 & 1', 'top-1 (%)': 12.5}
    text = ' '.join(Page((folder / 'report.html').read_text()).text)
    assert re.search(r'top-1 \(%\)\s+12\.5', text)
    write_page(folder)
    assert '12.5' in (folder / 'report.html').read_text(), 'it is kept'


def test_reports_of_before_have_a_page(repo, tmp_path):
    old = repo / 'tests/fixtures/v0_1_0/plain/subnet'
    for name in ('report.json', 'subnet.json'):
        shutil.copy(old / name, tmp_path)
    text = ' '.join(Page(write_page(tmp_path).read_text()).text)
    assert '115.9 K' in text and 'Not known here' in text


@pytest.mark.parametrize('content', [None, '{}', '[1]', 'no JSON'])
def test_other_folders_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / 'report.json').write_text(content)
    with pytest.raises(
            SubnetError,
            match='has no report.json of an export .*'
            ': name the folder'):
        write_page(tmp_path)


def test_a_notebook_shows_the_first_part(export):
    text = ' '.join(Page(export._repr_html_()).text)
    assert export.report.summary() in text and 'Structure' in text


def test_in_a_browser_nothing_scrolls_sideways(export, tmp_path):
    """At the width of a telephone, where there is a browser."""
    browser = shutil.which('chromium')
    if browser is None:
        warnings.warn('report.html was not looked at in a browser: there is '
                      'no chromium')
        return
    html = (export.path / 'report.html').read_text(encoding='utf-8')
    html = re.sub('<meta http-equiv.*?>', '', html).replace(
        '</body>', '<script>document.title = document.documentElement.'
        'scrollWidth + " of " + innerWidth</script></body>')
    (tmp_path / 'page.html').write_text(html, encoding='utf-8')
    found = subprocess.run([
        browser, '--headless=new', '--no-sandbox', '--disable-gpu',
        '--window-size=390,800', f'--user-data-dir={tmp_path / "profile"}',
        '--dump-dom', f'file://{tmp_path / "page.html"}'
    ],
                           capture_output=True,
                           text=True,
                           timeout=240).stdout
    wide, window = re.search(r'<title>(\d+) of (\d+)<', found).groups()
    assert int(wide) <= int(window) <= 500
