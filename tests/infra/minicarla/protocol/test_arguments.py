"""Arguments are what their annotations say, or one sentence says which is not."""

from __future__ import annotations

import math

import pytest

from infra.minicarla.protocol import arguments
from infra.minicarla.protocol.arguments import Flag, Id, Signature, Transform, abbreviated, parser
from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.server import Api

AT = [[1.0, 2.0, 3], [0.0, 90.0, 0.0]]


def place(self, actor: Id, transform: Transform, quickly: Flag = False): ...


def test_arguments_are_checked_in_order_and_the_last_may_be_left_out():
    assert Signature(place).check([7, AT]) == [7, (1.0, 2.0, 3.0, 0.0, 90.0, 0.0)]
    assert Signature(place).check([7, AT, True])[2] is True


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([7], "place was called with 1 arguments: give actor, transform, quickly"),
        ([7, AT, True, 1], "place was called with 4 arguments"),
        ([-1, AT], "actor is -1: give a whole number from 0 to 4294967295"),
        ([True, AT], "actor is True: give a whole number"),
        ([7, [[math.nan, 0, 0], AT[1]]], "transform location x is nan: give a finite number from -1e"),
        ([7, [[0, 1e300, 0], AT[1]]], r"transform location y is 1e\+300"),
        ([7, [[0, 0, "0"], AT[1]]], "transform location z is '0'"),
        ([7, [AT[0], [0, 0]]], "transform rotation is .*: give a list of pitch, yaw, roll"),
        ([7, {"x": 1}], "transform is .*: give a list of location, rotation"),
        ([7, AT, 1], "quickly is 1: give true or false"),
    ],
)
def test_the_first_wrong_argument_is_named(given, sentence):
    with pytest.raises(RpcError, match=sentence) as error:
        Signature(place).check(given)
    assert len(str(error.value)) < 400


def test_a_method_that_does_not_declare_an_argument_is_a_programming_error():
    def careless(self, actor): ...

    with pytest.raises(TypeError, match="careless does not declare what actor may be"):
        Signature(careless)


def test_every_rpc_of_the_server_declares_its_arguments():
    api = Api.__new__(Api)
    names = [name for name in dir(Api) if hasattr(getattr(Api, name), "rpc_form")]
    assert len(names) > 50
    for name in names:
        Signature(getattr(api, name))


@pytest.mark.parametrize("value", ["x" * 10_000, list(range(10_000)), b"\xff" * 9_999, "\udc80\n", {1: [2] * 999}])
def test_values_in_sentences_are_short_and_printable(value):
    assert len(abbreviated(value)) < 250
    assert abbreviated(value).isprintable()


@pytest.mark.parametrize("wrong", [0.0, -0.05, math.nan, math.inf, 1e-9, 1e9, "0.05", None, True])
def test_a_step_that_is_no_positive_time_is_refused(wrong):
    values = [True, False, [True, wrong], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]
    with pytest.raises(RpcError, match="settings fixed_delta_seconds is"):
        parser(arguments.EpisodeSettings)(values, "settings")
