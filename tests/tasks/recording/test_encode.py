"""Images to clips: equal bytes for equal images, a first frame that knows nothing of the rest, exact depths and ids."""

from __future__ import annotations

import io
import os
import subprocess

import numpy as np
import pytest

from infra.storage import StorageError
from tasks.recording.depth import FAR, depth_cm
from tasks.recording.encode import VideoWriter, halved, halved_nearest, mosaic, write_npz
from tasks.recording.errors import RecordingError
from tasks.sharding.reader import decode_video

WIDTH, HEIGHT, FRAMES = 96, 64, 33


def moving(seed: int, frames: int = FRAMES) -> np.ndarray:
    """Return [F, H, W, 3] uint8: a blurred texture that drifts."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8 + 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    return np.stack([texture[:, k : k + WIDTH] for k in range(frames)])


def encoded(path, frames: np.ndarray, **options) -> bytes:
    writer = VideoWriter(path, frames.shape[2], frames.shape[1], 10.0, **options)
    for frame in frames:
        writer.write(frame)
    writer.close()
    return path.read_bytes()


def test_the_same_images_give_the_same_bytes(tmp_path):
    frames = moving(0)
    assert encoded(tmp_path / "a.mp4", frames) == encoded(tmp_path / "b.mp4", frames)
    grey = frames[..., 0].astype(np.uint16) * 257
    options = {"lossless_16bit": True}
    assert encoded(tmp_path / "a.mkv", grey, **options) == encoded(tmp_path / "b.mkv", grey, **options)


def test_frame_0_depends_on_frame_0_alone(tmp_path):
    first, second = moving(0), moving(1)
    second[0] = first[0]
    one, two = (decode_video(encoded(tmp_path / f"{k}.mp4", v)) for k, v in enumerate((first, second)))
    assert (one[0] == two[0]).all()
    assert np.abs(one[1].astype(int) - two[1]).mean() > 20


def test_colours_come_back_through_bt709(tmp_path):
    colours = np.array([[200, 20, 20], [20, 160, 30], [30, 40, 210], [128, 128, 128]], np.uint8)
    bars = np.broadcast_to(colours.repeat(WIDTH // 4, 0)[None, None], (9, HEIGHT, WIDTH, 3))
    back = decode_video(encoded(tmp_path / "a.mp4", bars[..., ::-1]))
    middles = back[:, HEIGHT // 2, WIDTH // 8 :: WIDTH // 4]
    assert np.abs(middles.astype(int) - colours).max() <= 2


def test_greys_stay_grey_and_as_light_as_they_were(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 256).astype(np.uint8)[None, None, :, None], (9, HEIGHT, 256, 3))
    error = decode_video(encoded(tmp_path / "a.mp4", ramp)).astype(float) - ramp
    assert np.abs(error.mean((0, 1, 2))).max() < 0.2
    assert np.abs(error - error.mean(-1, keepdims=True)).max() < 1


def test_videos_that_share_a_process_have_the_bytes_of_single_ones(tmp_path):
    pictures = [moving(seed) for seed in range(3)]
    codes = [frames[..., 0].astype(np.uint16) * 257 for frames in pictures]
    for clips, end, options in ((pictures, "mp4", {}), (codes, "mkv", {"lossless_16bit": True})):
        paths = [tmp_path / f"{number}.{end}" for number in range(3)]
        writer = VideoWriter(paths, WIDTH, HEIGHT, 10.0, **options)
        for frames in zip(*clips, strict=True):
            writer.write(*frames)
        writer.close()
        assert writer.frames == len(clips[0])
        with pytest.raises(ValueError, match="2 frames were given for 3 videos"):
            writer.write(*clips[0][:2])
        for path, frames in zip(paths, clips, strict=True):
            assert path.read_bytes() == encoded(tmp_path / f"alone.{end}", frames, **options)


def test_sixteen_bits_are_kept_exactly(tmp_path):
    codes = np.random.default_rng(0).integers(0, 65536, (9, HEIGHT, WIDTH)).astype(np.uint16)
    assert (decode_video(encoded(tmp_path / "a.mkv", codes, lossless_16bit=True)) == codes).all()


def test_ffmpegs_own_words_are_in_the_error(tmp_path):
    writer = VideoWriter(tmp_path / "no folder" / "a.mp4", WIDTH, HEIGHT, 10.0)
    with pytest.raises(RecordingError, match=r"a\.mp4.*No such file"):
        for frame in moving(0, frames=1).repeat(200, 0):
            writer.write(frame)
        writer.close()
    writer.abort()


@pytest.mark.parametrize("options", [{}, {"lossless_16bit": True}])
def test_a_full_disk_is_named_in_place_of_ffmpegs_fault(tmp_path, options):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    noise = noise[..., 0].astype(np.uint16) * 257 if options else noise
    (folder / "window").mkdir()
    writer = VideoWriter(folder / "window" / "a.mkv", WIDTH, HEIGHT, 10.0, **options)
    try:
        with pytest.raises(StorageError, match="cannot be written, the disk is full: free some space"):
            for _ in range(60):
                writer.write(noise)
                noise = np.roll(noise, 7, 0)
            writer.close()
        writer.abort()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_aborted_video_leaves_no_process(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", WIDTH, HEIGHT, 10.0)
    writer.write(moving(0)[0])
    writer.abort()
    assert writer.process.poll() is not None
    writer.abort()  # a second time does no harm


def coded(metres: np.ndarray) -> np.ndarray:
    """Return CARLA's depth image [.., 4] BGRA: R + 256 G + 65536 B over 2^24 - 1 is the share of 1000 m."""
    code = np.rint(metres / 1000 * (2**24 - 1)).astype(np.int64)
    return np.stack([code >> 16, (code >> 8) & 255, code & 255, np.full_like(code, 255)], -1).astype(np.uint8)


def test_depth_is_in_centimetres_and_far_is_far():
    metres = np.array([[0.0, 0.01, 1.0, 12.34, 300.005], [655.34, 655.35, 700.0, 999.0, 1000.0]])
    assert depth_cm(coded(metres)).tolist() == [[0, 1, 100, 1234, 30000], [65534, FAR, FAR, FAR, FAR]]


def test_halving_averages_pictures_and_picks_ids():
    block = np.array([[[10, 0, 0, 9], [20, 0, 0, 9]], [[30, 0, 4, 9], [41, 0, 0, 9]]], np.uint8)
    assert halved(block).tolist() == [[[25, 0, 1]]]
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 4), np.uint8)
    cells = image[..., :3].reshape(16, 2, 24, 2, 3).astype(int).sum((1, 3))
    assert (halved(image) == (cells + 2) // 4).all()
    ids = np.arange(24, dtype=np.uint16).reshape(4, 6)
    assert halved_nearest(ids).tolist() == [[0, 2, 4], [12, 14, 16]]


def test_the_mosaic_is_front_rear_over_left_right():
    laid = mosaic([np.full((2, 3), value) for value in range(4)])
    assert laid.shape == (4, 6)
    assert laid[::2, ::3].tolist() == [[0, 1], [2, 3]]


def test_npz_bytes_depend_on_the_arrays_alone(tmp_path, monkeypatch):
    import time

    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.eye(4)}
    write_npz(tmp_path / "one.npz", arrays)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    write_npz(tmp_path / "two.npz", dict(reversed(arrays.items())))
    data = (tmp_path / "one.npz").read_bytes()
    assert data == (tmp_path / "two.npz").read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        assert (found["b"] == arrays["b"]).all()
