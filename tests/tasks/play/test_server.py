"""The page and its socket: the token, foreign pages, seats, messages that make no sense, pages that lag or close."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient, WebSocketDenialResponse

from tasks.play.errors import PlayError
from tasks.play.server import NO_TOKEN, UNSEEN_FRAMES, Play, build_app, open_port
from tests.tasks.play.conftest import OTHER_SCENE, SCENE, until

PORT, TOKEN = 8123, "right-token"
ADDRESS = f"http://127.0.0.1:{PORT}"
SOCKETS = f"ws://127.0.0.1:{PORT}/socket"
SOCKET = f"{SOCKETS}?token={TOKEN}"


class NoTruth:
    """A truth that is only switched."""

    state, newest = "off", None

    def switch(self, on: bool) -> None:
        self.state = "on" if on else "off"


@pytest.fixture
def play(session):
    return Play(session, NoTruth(), {"model": "painted"}, TOKEN)


@pytest.fixture
def client(play):
    with TestClient(build_app(play, PORT), base_url=ADDRESS) as made:
        yield made


def said(socket, kind: str):
    """Receive until a message of a kind comes; frames are told that they were seen."""
    while True:
        message = socket.receive()
        text = message.get("text")
        if text is None:
            header, picture = message["bytes"].split(b"\n", 1)
            socket.send_json({"type": "seen"})
            found = json.loads(header) | {"picture": picture}
        else:
            found = json.loads(text)
        if found["type"] == kind:
            return found


def test_the_page_is_one_document_that_asks_nobody_else(client):
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert "/*style*/" not in answer.text
    assert "/*script*/" not in answer.text
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=right-toke", "?token=ü"])
@pytest.mark.parametrize("path", ["/", "/socket", "/docs", "/nothing"])
def test_without_the_token_there_is_a_sentence_and_nothing_else(client, path, query):
    answer = client.get(path + query)
    assert (answer.status_code, answer.text) == (403, f"{NO_TOKEN}\n")


@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_the_socket_needs_the_token_too(client, play, query):
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(f"{SOCKETS}{query}"):
        pass
    assert (refused.value.status_code, refused.value.text) == (403, f"{NO_TOKEN}\n")
    assert not play.visitors


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "http://127.0.0.1:9"}, {"host": "evil.example"}]
)
def test_foreign_pages_and_names_are_refused_even_with_the_token(client, headers):
    assert client.get(f"/?token={TOKEN}", headers=headers).status_code == 403
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(SOCKET, headers=headers):
        pass
    assert refused.value.status_code == 403
    assert refused.value.text.startswith("This server ")


def test_a_visitor_is_told_everything_and_sees_frames(client):
    with client.websocket_connect(SOCKET, headers={"origin": ADDRESS}) as socket:
        hello = said(socket, "hello")
        assert hello["model"] == "painted"
        assert [scene["name"] for scene in hello["scenes"]] == [SCENE, OTHER_SCENE]
        assert said(socket, "state")["seats"] == [False, False]
        first, later = said(socket, "frame"), said(socket, "frame")
        assert later["number"] > first["number"] or first["number"] == 0
        picture = Image.open(io.BytesIO(later["picture"]))
        assert (picture.format, picture.size) == ("JPEG", (96, 128))
        assert set(later["cars"][0]) == {"x", "y", "yaw", "speed_mps", "driven", "answers"}


def test_a_program_drives_a_seat(client):
    with client.websocket_connect(SOCKET) as socket:
        socket.send_json({"type": "take", "seat": 1})
        socket.send_json({"type": "drive", "seat": 1, "throttle": -1, "steering": 0.5, "number": 3})
        frame = said(socket, "frame")
        while frame["cars"][1]["answers"] != 3:
            frame = said(socket, "frame")
        assert frame["cars"][1]["driven"]
        assert not frame["cars"][0]["driven"]


def test_a_seat_has_one_driver_and_is_free_when_its_page_closes(client, play):
    with client.websocket_connect(SOCKET) as second:
        with client.websocket_connect(SOCKET) as first:
            first.send_json({"type": "take", "seat": 0})
            until(lambda: play.session.seats.now()[0].driver)
            second.send_json({"type": "take", "seat": 0})
            refused = said(second, "refused")
            assert refused["message"].startswith("Car 0 has a driver already: ")
            second.send_json({"type": "drive", "seat": 0, "throttle": 1, "steering": 0, "number": 1})
            assert said(second, "refused")["message"].startswith("Car 0 is not yours: ")
            second.send_json({"type": "take", "seat": 1})
            until(lambda: play.session.seats.now()[1].driver)
        until(lambda: not play.session.seats.now()[0].driver)
        second.send_json({"type": "take", "seat": 0})
        until(lambda: play.session.seats.now()[0].driver)


@pytest.mark.parametrize(
    "message",
    [
        "", "nonsense", "[]", "{}", "null", '{"type": "fly"}', '{"type": "take"}', '{"type": "take", "seat": 2}',
        '{"type": "take", "seat": "0"}', '{"type": "take", "seat": 0, "more": 1}', '{"type": "take", "seat": true}',
        '{"type": "drive", "seat": 0, "throttle": 2, "steering": 0, "number": 0}',
        '{"type": "drive", "seat": 0, "throttle": NaN, "steering": 0, "number": 0}',
        '{"type": "drive", "seat": 0, "throttle": 1e999, "steering": 0, "number": 0}',
        '{"type": "pause", "on": "maybe"}', '{"type": "scene", "name": "nowhere"}', "[" * 3000, "x" * 5000, "\x00",
    ],
)  # fmt: skip
def test_messages_that_make_no_sense_get_a_sentence_and_the_session_goes_on(client, message):
    with client.websocket_connect(SOCKET) as socket:
        for send in (socket.send_text, lambda text: socket.send_bytes(text.encode() + b"\xff")):
            send(message)
            refused = said(socket, "refused")["message"]
            assert "\n" not in refused
            assert refused.endswith(".")
            assert len(refused) < 400
        assert said(socket, "frame")


def test_a_page_that_lags_gets_the_newest_frame_and_holds_up_nobody(client, play):
    with client.websocket_connect(SOCKET) as socket:
        frames = []
        while len(frames) < UNSEEN_FRAMES:
            message = socket.receive()
            if message.get("bytes"):
                frames.append(json.loads(message["bytes"].split(b"\n", 1)[0])["number"])
        made = play.session.frames[-1].number
        until(lambda: play.session.frames[-1].number > made + 16)  # the loop goes on
        shown = play.session.shown().number
        socket.send_json({"type": "seen"})
        while not (message := socket.receive()).get("bytes"):
            pass
        assert json.loads(message["bytes"].split(b"\n", 1)[0])["number"] >= shown > frames[-1] + 1


def test_switches(client, play):
    with client.websocket_connect(SOCKET) as socket:
        for kind, name in (("pause", "paused"), ("record", "recording")):
            socket.send_json({"type": kind, "on": True})
            until(lambda name=name: play.state()[name])
            socket.send_json({"type": kind, "on": False})
            until(lambda name=name: not play.state()[name])
        socket.send_json({"type": "truth", "on": True})
        until(lambda: play.state()["truth"] == "on")
        socket.send_json({"type": "scene", "name": OTHER_SCENE})
        until(lambda: play.state()["scene"] == OTHER_SCENE)


def test_a_port_in_use_is_one_sentence():
    taken = open_port(0)
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(PlayError, match=f"port {port} cannot be used \\(Address already in use\\): choose another"):
        open_port(port)
    taken.close()


def test_frames_are_pictures_of_both_cars_one_above_the_other(session):
    until(lambda: session.frames and session.frames[-1].number > 1)
    frame = session.frames[-1]
    picture = np.asarray(Image.open(io.BytesIO(frame.message.split(b"\n", 1)[1])))
    assert np.abs(picture[:64].astype(int) - frame.pictures[0]).mean() < 8
    assert np.abs(picture[64:].astype(int) - frame.pictures[1]).mean() < 8
