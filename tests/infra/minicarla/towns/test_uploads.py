"""An uploaded OpenDRIVE text costs time and memory in proportion to its size, or is refused."""

from __future__ import annotations

import time

import pytest

from infra.minicarla import towns
from infra.minicarla.towns import TownError
from infra.minicarla.towns.catalogue import flattened
from infra.minicarla.towns.road_network import read_road_network


def seconds(text: str) -> float:
    begun = time.process_time()
    flattened(text)
    return time.process_time() - begun


@pytest.mark.parametrize("piece", ["<elevation ", "<elevation s='0' ", " a =", '<elevation a="0" /', "<crossfall\t"])
def test_setting_heights_to_zero_takes_time_in_proportion_to_the_text(piece):
    assert seconds(piece * 200_000) < 1.0 + 20 * seconds(piece * 20_000)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('length="', 'length="9', "m of lanes, more than"),
        ('<laneSection s="', '<laneSection s="9', "m of lanes, more than"),
        ('length="', 'length="nan" was="', "length='nan', which is not finite"),
        ('hdg="', 'hdg="inf" was="', "hdg='inf', which is not finite"),
        ("<OpenDRIVE", "<!DOCTYPE lolz [<!ENTITY lol 'lol'>]><OpenDRIVE", "document type declaration"),
    ],
)
def test_texts_that_cost_too_much_are_refused_at_once(before, after, reason):
    text = towns.load_town("Mini01").opendrive
    bad = text.replace(before, after if "9" not in after else after.replace("9", "999999999"))
    assert bad != text
    begun = time.process_time()
    with pytest.raises(TownError, match=reason):
        read_road_network(bad)
    assert time.process_time() - begun < 2.0
