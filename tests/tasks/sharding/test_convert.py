"""Clips of other origin: a made-up folder of the documented layout becomes a data set that everything reads."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch

from infra.storage import sha256_file
from model.camera import VIEWS, carla_matrix, carla_to_c2w, intrinsics
from model.presets import Preset
from tasks.evaluation.scoring.windows import Windows
from tasks.evaluation.vbench.videos import write_lossless_video as write_video
from tasks.sharding.__main__ import main
from tasks.sharding.convert import carla_pose_from_c2w, convert, resize_nearest
from tasks.sharding.reader import ClipIndex, ClipPairs
from tasks.sharding.shards import ShardError
from tasks.sharding.verify import verify
from tests.local_encoding import encode_here
from tests.synthetic_dataset import camera_poses, car_poses

WIDTH, HEIGHT, FRAMES, FPS = 48, 32, 20, 15.0
TINY = Preset.load("tiny")


def smooth_frames(seed: int) -> np.ndarray:
    """[F, h, w, 3] uint8: broad patches that change slowly, which H.264 keeps."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 3, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (FRAMES, HEIGHT, WIDTH), mode="trilinear", align_corners=True)
    return (fine[0].permute(1, 2, 3, 0) * 200 + 25).byte().numpy()


def poses() -> np.ndarray:
    """[A, V, F, 4, 4] of two cars that meet."""
    return carla_to_c2w(camera_poses(car_poses(np.random.default_rng(0), FRAMES)))


def write_clip(folder, *, town, agents=2, depth=True, ids=True, **description):
    """One clip in the layout of docs/OTHER_DATA.md."""
    folder.mkdir(parents=True)
    (folder / "clip.json").write_text(json.dumps({"fps": FPS, "town": town, **description}))
    for agent in range(agents):
        place = folder / f"agent{agent}"
        place.mkdir()
        K = np.broadcast_to(intrinsics(WIDTH, HEIGHT, 90.0), (4, 3, 3))
        np.savez(place / "cameras.npz", K=K, c2w=poses()[agent].astype(np.float32))
        for view, name in enumerate(VIEWS):
            write_video(place / f"{name}.mp4", smooth_frames(10 * agent + view + len(town)), FPS)
            if depth:
                metres = np.full((FRAMES, HEIGHT, WIDTH), 10.0 + 2 * agent + view, np.float32)
                metres[:, 0] = np.inf
                metres += np.arange(FRAMES, dtype=np.float32)[:, None, None] / 4
                np.save(place / f"{name}.depth.npy", metres)
            if ids:
                np.save(place / f"{name}.instance.npy", np.full((FRAMES, HEIGHT, WIDTH), agent + view, np.uint16))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    write_clip(folder / "train" / "a", town="A", depth=False, ids=False)
    write_clip(folder / "test" / "b", town="BB", weather="rain", type="following")
    return folder


@pytest.fixture(scope="module")
def dataset_dir(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("datasets") / "other"
    convert(source, target, frames=9)
    return target


@pytest.fixture
def changed(source, tmp_path):
    """A copy of the folder for a test to spoil."""
    return shutil.copytree(source, tmp_path / "spoilt")


def test_pixels_cameras_and_ground_truth_arrive(dataset_dir):
    assert verify(dataset_dir) == 4  # two clips of 20 frames: two windows of 9 each
    pairs = ClipPairs(dataset_dir, "test")
    assert [row["window"] for row in pairs.rows] == [0, 9]
    assert {row["weather"] for row in pairs.rows} == {"rain"}
    pair = pairs[1]
    for agent in range(2):
        views = [smooth_frames(10 * agent + view + 2)[9:18] for view in range(4)]
        truth = np.concatenate([np.concatenate(views[:2], 2), np.concatenate(views[2:], 2)], 1)
        error = pair.videos[agent].astype(int) - truth
        assert np.abs(error).mean() < 4  # half the chroma is lost where views meet
        shift = error.mean((0, 1, 2))
        assert np.abs(shift).max() < 1
    np.testing.assert_allclose(pair.cameras.c2w, poses()[:, :, 9:18], atol=1e-5)
    np.testing.assert_allclose(carla_to_c2w(pair.cameras.carla_pose), pair.cameras.c2w, atol=1e-9)
    assert np.isnan(pair.cameras.agent_pose).all()
    assert pair.meta["fps"] == FPS
    assert pair.meta["source"] == "test/b"
    assert np.isinf(pair.depth_m[:, :, 0]).all()
    np.testing.assert_allclose(pair.depth_m[1, 2, -1, -1], 10 + 2 + 3 + (9 + 2) / 4, atol=0.005)  # view right
    assert pair.instance[1, 0, 40, 60] == 1 + 3
    assert ClipPairs(dataset_dir, "train")[0].depth_m is None


def test_training_and_evaluation_read_it(dataset_dir):
    index = ClipIndex(dataset_dir)
    windows = Windows(dataset_dir, index.split("test"), TINY)
    assert len(windows) == 2
    assert torch.isfinite(windows.raymaps([0, 1])).all()
    assert windows.video([0]).shape == (1, 2, 3, 9, TINY.video.height, TINY.video.width)
    latents = encode_here(dataset_dir, TINY)
    assert list(latents.rglob("*.tar"))


def test_the_same_folder_gives_the_same_bytes_and_nothing_twice(source, dataset_dir, tmp_path):
    again = convert(source, tmp_path / "again", frames=9)
    assert again.digest == ClipIndex(dataset_dir).digest
    for shard in ClipIndex(dataset_dir).record["shards"]:
        assert sha256_file(dataset_dir / shard) == sha256_file(tmp_path / "again" / shard)
    assert convert(source, tmp_path / "again", frames=9).written == 0


def test_one_agent_another_world_and_smaller_views(tmp_path):
    """As VP-WorldBench's clips: four views of one scene, world-to-camera poses, depth without instance ids."""
    folder = write_clip(tmp_path / "in" / "test" / "c", town="C", agents=1, ids=False, up="-y", metres_per_unit=0.5)
    c2w = poses()[0]
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # z up to -y up
    theirs = c2w.copy()
    theirs[..., :3, :3] = turn @ c2w[..., :3, :3]
    theirs[..., :3, 3] = 2 * c2w[..., :3, 3] @ turn.T
    K = np.broadcast_to(intrinsics(WIDTH, HEIGHT, 90.0), (4, 3, 3))
    np.savez(folder / "agent0" / "cameras.npz", K=K, w2c=np.linalg.inv(theirs))
    convert(tmp_path / "in", tmp_path / "out", frames=9, view=(24, 16))
    verify(tmp_path / "out")
    pair = ClipPairs(tmp_path / "out", "test")[0]
    assert pair.videos.shape == (1, 9, 32, 48, 3)
    assert pair.instance is None
    np.testing.assert_allclose(pair.cameras.c2w[0], c2w[:, :9], atol=1e-9)
    np.testing.assert_allclose(pair.cameras.K[0, 0], intrinsics(24, 16, 90.0), atol=1e-9)
    np.testing.assert_allclose(pair.depth_m[0, 0, 3, 3], 5.0, atol=0.005)


def test_poses_return_to_carlas():
    given = np.array([[1.0, 2, 3, 10, 20, 30], [-4, 5, 0, -80, 179, -5]])
    np.testing.assert_allclose(carla_pose_from_c2w(carla_to_c2w(given)), given, atol=1e-9)


def test_nearest_takes_the_middle_of_each_block():
    assert resize_nearest(np.arange(36).reshape(6, 6), (2, 2)).tolist() == [[7, 10], [25, 28]]


def spoil(name):
    """Ways to spoil the folder, each with the words of its error."""

    def description(**values):
        def change(folder):
            path = folder / "test" / "b" / "clip.json"
            given = {**json.loads(path.read_text()), **values}
            path.write_text(json.dumps({key: value for key, value in given.items() if value is not None}))

        return change

    def cameras(change):
        def spoilt(folder):
            path = folder / "test" / "b" / "agent1" / "cameras.npz"
            with np.load(path) as arrays:
                given = dict(arrays)
            change(given)
            np.savez(path, **given)

        return spoilt

    def scaled(given):
        given["c2w"] = given["c2w"] * np.array([1.1, 1.1, 1.1, 1], np.float32)

    def mirrored(given):
        given["c2w"] = np.diag([1.0, -1, 1, 1]) @ given["c2w"]

    def off_centre(given):
        given["K"] = given["K"] + np.array([[0, 0, 3.0], [0, 0, 0], [0, 0, 0]])

    def carlas(given):
        """As actor.get_transform().get_matrix() gives them: x forward, y right, z up."""
        given["c2w"] = np.tile(carla_matrix(np.array([1.0, 2, 2, 0, 30, 0])), (*given["c2w"].shape[:2], 1, 1))

    def rows(given):
        given["c2w"] = given["c2w"].swapaxes(-1, -2)

    def lens(value):
        return lambda given: given["K"].__setitem__((0, 0, 0), value)

    agent = "test/b/agent0/"
    return {
        "no json": (lambda f: (f / "test/b/clip.json").unlink(), r"clip\.json cannot be read"),
        "fps": (description(fps=0), "says fps 0: give a number above 0"),
        "no town": (description(town=None), "says town None"),
        "unknown key": (description(wheather="rain"), "unknown key 'wheather'"),
        "up": (description(up="x"), "says up 'x'"),
        "town twice": (description(town="A"), "town A is in train and test"),
        "no view": (lambda f: (f / agent / "left.mp4").unlink(), r"left\.mp4 is no video"),
        "no depth": (lambda f: [p.unlink() for p in (f / "test").rglob("*.depth.npy")], "val and test need depth"),
        "some depth": (lambda f: (f / agent / "rear.depth.npy").unlink(), r"rear\.depth\.npy is missing while"),
        "depth shape": (
            lambda f: np.save(f / agent / "rear.depth.npy", np.ones((3, 32, 48))), r"has shape \(3, 32, 48\)"
        ),
        "depth zero": (
            lambda f: np.save(f / agent / "rear.depth.npy", np.zeros((FRAMES, 32, 48))), "no positive number"
        ),
        "ids": (lambda f: np.save(f / agent / "rear.instance.npy", np.ones((FRAMES, 32, 48))), "no whole numbers"),
        "agent names": (lambda f: (f / agent).rename(f / "test/b/agent7"), "name them agent0, agent1"),
        "short video": (
            lambda f: [write_video(f / agent / f"{v}.mp4", smooth_frames(0)[:18], FPS) for v in VIEWS],
            "videos of 18 frames and poses of 20",
        ),
        "unequal videos": (lambda f: write_video(f / agent / "left.mp4", smooth_frames(0)[:18], FPS), "different len"),
        "sizes": (lambda f: write_video(f / agent / "left.mp4", smooth_frames(0)[:, :16], FPS), "different sizes"),
        "no K": (cameras(lambda given: given.pop("K")), "give K and either c2w or w2c"),
        "scaled": (cameras(scaled), "no rigid motions"),
        "mirrored": (cameras(mirrored), "left-handed world"),
        "off centre": (cameras(off_centre), "principal point"),
        "carla": (cameras(carlas), r"up axis \(z\) above: give c2w or w2c in OpenCV's axes"),
        "rows": (cameras(rows), "last row is not 0 0 0 1"),
        "nan lens": (cameras(lens(np.nan)), "has a K that is none"),
        "no lens": (cameras(lens(0.0)), "has a K that is none"),
        "weather": (description(weather=3), "says weather 3: give a text"),
        "agents": (lambda f: shutil.rmtree(f / "test/b/agent1"), r"test/b has 1 agents and train/a 2"),
        "pickle": (cameras(lambda given: given.update(K=np.array([None]))), "cannot be read"),
        "texts": (cameras(lambda given: given.update(K=np.full((4, 3, 3), "x"))), "give real numbers"),
        "far away": (cameras(lambda given: given["c2w"].__setitem__((0, 0, 0, 3), 1e30)), "from the world's origin"),
        "fps huge": (description(fps=1e300), "says fps 1e\\+300: give a number above 0, at most 1000"),
        "fps true": (description(fps=True), "says fps True"),
        "town climbs": (description(town="../up"), "without slashes"),
        "town surrogate": (description(town="\ud800"), "says town"),
        "up list": (description(up=["z"]), r"says up \['z'\]"),
        "no UTF-8": (lambda f: (f / "test/b/clip.json").write_bytes(b"\xff{}"), "no readable JSON"),
        "depth texts": (lambda f: np.save(f / agent / "rear.depth.npy", np.full((FRAMES, 32, 48), "x")), "real num"),
        "depth empty": (lambda f: (f / agent / "rear.depth.npy").write_bytes(b""), "cannot be read"),
        "depth zipped": (lambda f: shutil.copy(f / agent / "cameras.npz", f / agent / "rear.depth.npy"), "several"),
        "long video": (
            lambda f: [write_video(f / agent / f"{v}.mp4", smooth_frames(0)[[*range(20), 0]], FPS) for v in VIEWS],
            "videos of more than 20 frames and poses of 20",
        ),
        "video folder": (
            lambda f: [(f / agent / "left.mp4").unlink(), (f / agent / "left.mp4").mkdir()], r"left\.mp4 is no video"
        ),
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["no json", "fps", "no town", "unknown key", "up", "town twice", "no view", "no depth", "some depth", "depth shape",
     "depth zero", "ids", "agent names", "short video", "unequal videos", "sizes", "no K", "scaled", "mirrored",
     "off centre", "pickle", "carla", "rows", "nan lens", "no lens", "weather", "agents", "texts", "far away",
     "fps huge", "fps true", "town climbs", "town surrogate", "up list", "no UTF-8", "depth texts", "depth empty",
     "depth zipped", "long video", "video folder"],
)  # fmt: skip
def test_each_fault_is_told_in_a_sentence(name, changed, tmp_path):
    change, words = spoil(name)
    change(changed)
    with pytest.raises(ShardError, match=words) as caught:
        convert(changed, tmp_path / "out", frames=9)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_the_command_says_what_it_made_and_what_is_wrong(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "out"), "--frames", "17", "--view", "24x16"]) == 0
    assert capsys.readouterr().out.startswith("2 clips in 2 shards")
    assert main(["verify", str(tmp_path / "out")]) == 0
    for wrong, words in (
        (["--frames", "16"], "frames is 16"),
        (["--frames", "49"], "has 20 frames and a stored clip 49"),
        (["--frames", "9", "--view", "480x320"], "smaller than 480x320"),
    ):
        assert main(["convert", str(source), str(tmp_path / "other"), *wrong]) == 1
        assert words in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nothing"), str(tmp_path / "other")]) == 1
    assert "holds no clips" in capsys.readouterr().err


def target_holding(name):
    """Return a folder of the user's own, and of it all that must be there afterwards."""

    def made(target):
        target.mkdir()
        (target / name).write_text("mine")
        return target

    return made


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda source, tmp: source, "was not made by convert"),
        (lambda source, tmp: source / "train" / "out", "are one folder or lie one in the other"),
        (lambda source, tmp: source.parent, "was not made by convert"),
        (lambda source, tmp: linked(tmp / "link", source) / "out", "are one folder or lie one in the other"),
        (lambda source, tmp: linked(tmp / "link", source), "was not made by convert"),
        (lambda source, tmp: target_holding("plan.json")(tmp / "planned"), "is a planned data set"),
        (lambda source, tmp: target_holding("plan.parquet")(tmp / "o"), "holds 'plan.parquet' and was not made by"),
        (lambda source, tmp: target_holding("notes.txt")(tmp / "o"), "holds 'notes.txt' and was not made by convert"),
        (lambda source, tmp: source / "train" / "a" / "clip.json", "is a file"),
        (lambda source, tmp: target_holding("file")(tmp / "o") / "file", "is a file"),
        (lambda source, tmp: target_holding("file")(tmp / "o") / "file" / "below", "cannot be a folder"),
        (lambda source, tmp: linked(tmp / "itself", tmp / "itself"), "is a file"),
    ],
)  # fmt: skip
def test_nothing_that_convert_did_not_make_is_touched(place, words, changed, tmp_path, capsys):
    target = place(changed, tmp_path)
    before = hashes_in(tmp_path)
    assert main(["convert", str(changed), str(target), "--frames", "9"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert hashes_in(tmp_path) == before


def test_a_clip_that_is_a_link_into_the_target_is_refused(changed, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "converted.json").write_text("{}")
    (changed / "train" / "a").rename(target / "mine")
    linked(changed / "train" / "a", target / "mine")
    with pytest.raises(ShardError, match="are one folder or lie one in the other"):
        convert(changed, target, frames=9)


def linked(link, target):
    link.symlink_to(target)
    return link


def hashes_in(folder):
    return {str(path): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["recordings", "shards", "shards/train"])
def test_nothing_is_written_through_a_symbolic_link(name, source, dataset_dir, tmp_path, capsys):
    target = shutil.copytree(dataset_dir, tmp_path / "out")
    precious = tmp_path / "precious"
    (precious / ".tmp-mine").mkdir(parents=True)
    shutil.rmtree(target / name)
    (target / name).symlink_to(precious)
    assert main(["convert", str(source), str(target), "--frames", "9"]) == 1
    assert "is a symbolic link, through which nothing is written" in capsys.readouterr().err
    assert [path.name for path in precious.iterdir()] == [".tmp-mine"]


def test_a_recording_that_was_damaged_is_converted_again(source, dataset_dir, tmp_path):
    target = shutil.copytree(dataset_dir, tmp_path / "out")
    digest = ClipIndex(target).digest
    first, second = sorted((target / "recordings").iterdir())
    (first / "recording.json").write_text("{")
    (second / "w000" / "agent0.mp4").write_bytes(b"")
    shutil.rmtree(target / "shards")
    assert convert(source, target, frames=9).digest == digest
    verify(target)


def test_names_that_are_no_utf8_are_refused(changed, tmp_path, capsys):
    odd = os.fsdecode(b"\xff\xfe")
    with pytest.raises(ShardError, match="is no name in UTF-8"):
        convert(changed, tmp_path / odd, frames=9)
    shutil.copytree(changed / "train" / "a", changed / "train" / odd)
    with pytest.raises(ShardError, match="has a name that is no line of UTF-8"):
        convert(changed, tmp_path / "out", frames=9)
