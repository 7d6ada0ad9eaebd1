"""Views joined and cut apart."""

from __future__ import annotations

import pytest
import torch

from model import mosaic


def test_layout_is_front_rear_over_left_right():
    views = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert mosaic.assemble(views)[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_split_undoes_assemble():
    views = torch.randn(2, 5, 4, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mosaic.split(mosaic.assemble(views)), views)


def test_views_do_not_bleed_into_each_other_when_resized():
    views = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 24, 36)
    small = mosaic.split(mosaic.resize(mosaic.assemble(views)[None], 16, 24))
    assert torch.equal(small[0], torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 12))


def test_odd_sides_and_three_views_are_refused():
    with pytest.raises(ValueError, match="3x4"):
        mosaic.split(torch.zeros(3, 4, 3))
    with pytest.raises(ValueError, match="4 views or 1, not 3"):
        mosaic.assemble(torch.zeros(3, 3, 4, 4))
