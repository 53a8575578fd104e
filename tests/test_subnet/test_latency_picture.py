# Copyright (c) dms_razor contributors. All rights reserved.
"""Shares by hand; the picture shows them and the figures."""
import pytest
from matplotlib.figure import Figure

from dms_razor.subnet import latency_picture
from dms_razor.subnet.latency_picture import draw_latency, shares_of


def report(**changes):
    return dict(
        latency=dict(
            dict(
                limit=3.,
                predicted=2.,
                measured=2.2,
                spread=.01,
                tried=[],
                points=dict(measured=[4., 1.], predicted=[4.1, .9]),
                layers={
                    'a': [3., 1.],
                    'b': [1., .5],
                    '': [4., .5]
                }), **changes),
        layers=[
            dict(name='a', macs=[10, 4]),
            dict(name='b', macs=[60, 0]),
            dict(name='other', macs=[30, 4])
        ])


def test_shares_by_hand():
    names, shares = shares_of(report())
    assert names == ['a', 'b', 'everything else']
    assert shares[0] == pytest.approx((3 / 8, .5, .1, .5))
    assert shares[1] == pytest.approx((1 / 8, .25, .6, 0.))
    assert shares[2] == pytest.approx((.5, .25, .3, .5))


def test_few_layers_are_shown(monkeypatch):
    monkeypatch.setattr(latency_picture, 'MOST', 1)
    names, shares = shares_of(report())
    assert names == ['a', 'everything else']
    assert shares[1] == pytest.approx((5 / 8, .5, .9, .5))


@pytest.mark.parametrize('changes', [
    dict(),
    dict(points={}, measured=None),
    dict(tried=[
        dict(predicted=2., measured=3.4, kept=False),
        dict(predicted=2.5, measured=2.6, kept=True)
    ])
])
def test_what_is_drawn(tmp_path, monkeypatch, changes):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda figure, *args, **kwargs:
        (drawn.append(figure), save(figure, *args, **kwargs)))
    draw_latency(report(**changes), tmp_path / 'latency.png')
    assert (tmp_path / 'latency.png').stat().st_size > 1000
    left, right = drawn[0].axes
    points = [
        tuple(point) for dots in left.collections
        for point in dots.get_offsets()
    ]
    known = report(**changes)['latency']
    expected = list(
        zip(*(known['points'].get(name, ())
              for name in ('measured', 'predicted'))))
    tried = known['tried'] or [known]
    expected += [(each['measured'], each['predicted']) for each in tried
                 if each['measured'] is not None]
    assert points == expected
    assert [bar.get_width() for bar in right.containers[0]] == \
        pytest.approx([37.5, 12.5, 50.])
