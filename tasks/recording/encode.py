"""Encodes images into clips while they are recorded, through ffmpeg. Equal images give equal bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import ffmpeg
import imageio_ffmpeg
import numpy as np

from infra.storage import disk_fault
from tasks.recording.errors import RecordingError

BT709 = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
BITEXACT = {"map_metadata": -1, "fflags": "+bitexact", "flags:v": "+bitexact", "threads": 1}
CRF = 17
H264 = {
    "vcodec": "libx264",
    "pix_fmt": "yuv420p",
    "preset": "veryfast",
    "crf": CRF,
    "x264-params": "mbtree=0",  # with it, what comes later would change frame 0
    "movflags": "+faststart",
}
TO_BT709 = {
    "out_color_matrix": "bt709",
    "out_range": "tv",
    # without these swscale rounds down: everything turns darker, greys greenish, by 1 to 3 of 255
    "flags": "bicubic+accurate_rnd+full_chroma_int",
}
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors of the disk, which ffmpeg reports in the system's words."""
DISK_FULL_BYTES = 2**20
"""With less free space than this the disk is full, whatever ffmpeg says."""
FFV1 = {"vcodec": "ffv1", "level": 3, "pix_fmt": "gray16le"}


class VideoWriter:
    """An ffmpeg process that is fed frame by frame.

    It writes one video, or several of one size: their frames are stacked vertically on its input and cropped apart.
    """

    def __init__(
        self,
        paths: Path | Sequence[Path],
        width: int,
        height: int,
        fps: float,
        *,
        lossless_16bit: bool = False,
        crf: int = CRF,
    ) -> None:
        self.paths = [paths] if isinstance(paths, Path) else list(paths)
        count = len(self.paths)
        source = "gray16le" if lossless_16bit else "bgr24"
        options = FFV1 | BITEXACT if lossless_16bit else H264 | BT709 | BITEXACT | {"crf": crf}
        stacked = ffmpeg.input("pipe:", format="rawvideo", pix_fmt=source, s=f"{width}x{count * height}", r=fps)
        copies = stacked.filter_multi_output("split", count)
        outputs = []
        for index, path in enumerate(self.paths):
            stream = copies[index].filter("crop", width, height, 0, index * height)
            stream = stream if lossless_16bit else stream.filter("scale", **TO_BT709)
            outputs.append(stream.output(str(path), **options))
        command = ffmpeg.merge_outputs(*outputs).global_args("-loglevel", "error", "-nostdin")
        self.frames = 0
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            command.overwrite_output().compile(cmd=imageio_ffmpeg.get_ffmpeg_exe()),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
        )

    @property
    def file_names(self) -> str:
        """The videos' file names, for messages."""
        return ", ".join(path.name for path in self.paths)

    def write(self, *frames: np.ndarray) -> None:
        """Append one frame per video: [H, W, 3] uint8 BGR, or [H, W] uint16 when lossless.

        ValueError unless there are as many frames as videos: every later frame would go to the wrong one.
        """
        assert self.process.stdin is not None
        if len(frames) != len(self.paths):
            raise ValueError(f"{len(frames)} frames were given for {len(self.paths)} videos ({self.file_names})")
        try:
            for frame in frames:
                self.process.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            raise self.as_error("ffmpeg stopped writing", error) from error
        self.frames += 1

    def as_error(self, what: str, error: OSError | None = None) -> RuntimeError:
        """Return the error to raise for an ffmpeg that failed: StorageError when it was the disk."""
        reason = self.ffmpeg_message() or str(error or "it gave no reason")
        errnos = [number for number in DISK_ERRNOS if os.strerror(number) in reason]
        if not errnos and shutil.disk_usage(self.paths[0].parent.parent).free < DISK_FULL_BYTES:
            errnos = [errno.ENOSPC]
        fault = disk_fault(OSError(errnos[0], ""), self.paths[0].parent) if errnos else None
        return fault or RecordingError(f"{what} {self.file_names}: {reason}")

    def ffmpeg_message(self) -> str:
        """Return the end of what ffmpeg wrote to stderr."""
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()[-300:]

    def close(self) -> None:
        """Finish the file; RecordingError with ffmpeg's own words when it could not."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            code = self.process.wait(60)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.abort()
            raise RecordingError(f"ffmpeg did not finish {self.file_names}: {error}") from error
        failure = self.as_error("ffmpeg failed on") if code else None
        self.errors.close()
        if failure is not None:
            raise failure

    def abort(self) -> None:
        """End the process; what it has written is of no use."""
        self.process.kill()
        self.process.wait(10)
        if self.process.stdin:
            with contextlib.suppress(OSError):  # what was buffered has nowhere to go
                self.process.stdin.close()
        self.errors.close()


def halved(bgra: np.ndarray) -> np.ndarray:
    """Return [h/2, w/2, 3] uint8: means of 2x2 pixels, rounded."""
    sums = np.add(bgra[::2], bgra[1::2], dtype=np.uint16)  # rows, then columns: seven times as fast as a sum over axes
    sums = sums[:, ::2] + sums[:, 1::2]
    return ((sums[..., :3] + 2) >> 2).astype(np.uint8)


def halved_nearest(image: np.ndarray) -> np.ndarray:
    """Return every second row and column, for depths and ids, which must not be averaged."""
    return image[::2, ::2]


def mosaic(views: list[np.ndarray]) -> np.ndarray:
    """Join four views [h, w, ...] into one picture [2h, 2w, ...]: front, rear above left, right."""
    return np.concatenate([np.concatenate(views[:2], 1), np.concatenate(views[2:], 1)], 0)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz whose bytes depend on the arrays alone (numpy's own holds the time of day)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(arrays[name]), allow_pickle=False)
