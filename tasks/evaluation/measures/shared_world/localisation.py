"""Localisation of the other car: is it in the picture where it truly is, and not where it is not?

Definition: both agents' cars are red. In every view of every later frame the detector takes the largest connected
region of red paint (tasks/recording/visibility.py's rule, its strength calibrated); true is where the instance ids show
another agent's car. Over the view-frames in which it covers LEAST_SHARE of the view (at least LEAST_PIXELS) or more:
  other_recall          share in which the detector finds something,
  other_centre_px       mean distance of the centroids of region and truth, pixels of the model's view, found ones,
  other_bearing_deg     mean angle between the two, seen from above, degrees, found ones,
  other_iou             mean intersection over union of region and true mask, 0 where nothing was found;
over the view-frames with no pixel of it:
  other_false_presence  share in which the detector finds something;
all of them also by view (other_recall_front) and, but for the last and where the cars' poses are known, by distance
(other_recall_near).
Calibration: the strength is the one of STRENGTHS with the best mean IoU on true videos among those that can be trusted
there: a recall of LEAST_RECALL or more, a false presence of MOST_FALSE_PRESENCE or less, centroids off by
MOST_CENTRE_SHARE of the view's width or less. Where none can, nothing is said at all. The ground truth's row is the
detector's own error (chosen among six on the same videos). Generated videos come out of a codec: where
recall is below one half after its round trip of true videos, they are not judged (scoring.py).
Range: recall, false presence, IoU 0..1; pixels and degrees from 0.
Failure cases: other red things (walls, parked cars) are found too: ground truth shows how often; fog and blur take the
colour away, so a blurred car counts as missing; a car of which a part is hidden has its centroid where its visible
part is; three or more agents are told apart by nobody.
Source: the paper, Figure 4 ("accurately perceive the positions of the other agent"), by pictures only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from model.camera import VIEWS
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import GIVEN_FRAMES
from tasks.evaluation.measures.shared_world.world import WindowTruth

STRENGTHS = (0.5, 0.6, 0.7, 0.8, 1.0, 1.25)
"""1: red beyond 1.6 times green and 1.3 times blue, as the recorder's own check."""
BRICK = 0.85
"""Paint has at least so much blue as a share of its green; bricks and roofs have less."""
LEAST_SHARE, LEAST_PIXELS = 0.005, 6
LEAST_RECALL, MOST_FALSE_PRESENCE, MOST_CENTRE_SHARE = 0.8, 0.15, 0.05
DISTANCES_M = {"near": 12.0, "middle": 25.0, "far": np.inf}
"""Between the cars' origins; each up to its number."""
BY_DISTANCE = [
    f"other_{figure}_{name}" for name in DISTANCES_M for figure in ("recall", "centre_px", "bearing_deg", "iou")
]
NO_POSES = "not measured: some clips have no poses of the agents' cars, so how far the other car is isn't known."


@dataclass(frozen=True)
class CarDetector:
    """The largest region of red paint."""

    strength: float

    def red(self, picture: np.ndarray) -> np.ndarray:
        """Tell red paint by pixel of pictures [..., 3] in [0, 1]."""
        red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
        paint = (red > (1 + 0.6 * self.strength) * green) & (red > (1 + 0.3 * self.strength) * blue)
        return paint & (red > 60 / 255) & (blue >= BRICK * green)

    def find(self, view: np.ndarray) -> np.ndarray | None:
        """Return the region [h, w] bool in a view [h, w, 3], None where it is less than half of `least_pixels`."""
        mask = self.red(view)
        least = max(2, least_pixels(mask.size) // 2)
        if mask.sum() < least:
            return None
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        return labels == 1 + sizes.argmax() if sizes.max() >= least else None


def least_pixels(view_pixels: int) -> int:
    """Return how many pixels of a view the other car must cover to be looked for."""
    return max(LEAST_PIXELS, round(LEAST_SHARE * view_pixels))


@dataclass(frozen=True)
class Sighting:
    """What the detector says of the other car in one frame of one view."""

    view: str
    distance_m: float
    """NaN where the cars' poses are not known."""
    visible: bool
    found: bool
    centre_px: float = np.nan
    bearing_deg: float = np.nan
    iou: float = 0.0


def centroid(mask: np.ndarray) -> np.ndarray:
    """Return x, y of a mask [h, w], pixel centres at +0.5."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def azimuth_deg(pixel: np.ndarray, K: np.ndarray, c2w: np.ndarray) -> float:
    """Return the direction of the ray through a pixel, seen from above, degrees."""
    ray = c2w[:3, :3] @ np.linalg.solve(K, np.array([*pixel, 1.0]))
    return float(np.degrees(np.arctan2(ray[1], ray[0])))


def sightings(world: WindowTruth, video: np.ndarray, detector: CarDetector) -> Iterator[Sighting]:
    """Yield the view-frames of a video [A, V, T, h, w, 3] in which the other car is visible or surely is not."""
    least = least_pixels(video.shape[3] * video.shape[4])
    for agent in range(world.agents):
        for frame in range(GIVEN_FRAMES, len(world.frames)):
            eyes = world.cars[:, frame, :3, 3]
            distance = float(np.sort(np.linalg.norm(eyes - eyes[agent], axis=1))[1])
            for view in range(video.shape[1]):
                share = world.other[agent, view, frame]
                mask = share >= 0.5
                visible = int(mask.sum()) >= least
                if not visible and share.any():
                    continue
                region = detector.find(video[agent, view, frame])
                if region is None or not visible:
                    yield Sighting(VIEWS[view], distance, visible, region is not None)
                    continue
                found, true = centroid(region), centroid(mask)
                camera = world.K[agent, view], world.c2w[agent, view, frame]
                yield Sighting(
                    VIEWS[view],
                    distance,
                    visible,
                    True,
                    float(np.linalg.norm(found - true)),
                    angle_between_deg(azimuth_deg(found, *camera), azimuth_deg(true, *camera)),
                    float((region & mask).sum() / (region | mask).sum()),
                )


def angle_between_deg(one: float, other: float) -> float:
    """Return the angle from 0 to 180 degrees between two directions, whichever way around is shorter."""
    return abs((one - other + 180) % 360 - 180)


def share_found(some: list[Sighting]) -> float | None:
    return float(np.mean([sighting.found for sighting in some])) if some else None


def figures(all_sightings: Iterable[Sighting]) -> dict[str, float | None]:
    """Return the figures of some view-frames, of all and by distance and view; None for what none of them shows."""
    some = list(all_sightings)
    values = summary(some)
    nearest = 0.0
    for name, farthest in DISTANCES_M.items():
        part = summary(
            [sighting for sighting in some if sighting.visible and nearest <= sighting.distance_m < farthest]
        )
        values |= {f"{figure}_{name}": value for figure, value in part.items() if figure != "other_false_presence"}
        nearest = farthest
    for view in VIEWS:
        part = summary([sighting for sighting in some if sighting.view == view])
        values |= {f"{figure}_{view}": value for figure, value in part.items()}
    return values


def summary(some: list[Sighting]) -> dict[str, float | None]:
    """Return the figures of some view-frames together."""
    visible = [sighting for sighting in some if sighting.visible]
    found = [sighting for sighting in visible if sighting.found]
    return {
        "other_recall": share_found(visible),
        "other_false_presence": share_found([sighting for sighting in some if not sighting.visible]),
        "other_centre_px": float(np.mean([sighting.centre_px for sighting in found])) if found else None,
        "other_bearing_deg": float(np.mean([sighting.bearing_deg for sighting in found])) if found else None,
        "other_iou": float(np.mean([sighting.iou for sighting in visible])) if visible else None,
    }


def measure_localisation(
    world: WindowTruth, videos: Mapping[str, np.ndarray], detector: CarDetector
) -> dict[str, dict[str, float | None]]:
    """Return the figures by row of videos [A, V, T, h, w, 3]."""
    return {row: figures(sightings(world, video, detector)) for row, video in videos.items()}


def calibrate(samples: Iterable[tuple[WindowTruth, np.ndarray]]) -> CarDetector:
    """Choose the detector's strength on true videos [A, V, T, h, w, 3] with their geometry.

    EvaluationError, in one sentence, when it cannot be trusted even there.
    """
    seen: dict[float, list[Sighting]] = {strength: [] for strength in STRENGTHS}
    width = 0
    for world, truth in samples:
        if world.agents < 2:
            raise EvaluationError("not measured: one agent alone has no other car to be found in its videos.")
        width = truth.shape[4]
        for strength, found in seen.items():
            found += sightings(world, truth, CarDetector(strength))
    own = {strength: figures(found) for strength, found in seen.items()}
    if any(values["other_iou"] is None or values["other_false_presence"] is None for values in own.values()):
        raise EvaluationError(
            "not measured: the detector of the other car cannot be calibrated, it is never in sight (or never out of "
            "it) in the true videos: score a split in which the agents meet."
        )
    trusted = {strength: values for strength, values in own.items() if trustworthy(values, width)}
    if trusted:
        return CarDetector(max(trusted, key=lambda strength: trusted[strength]["other_iou"] or 0.0))
    best = max(
        own.values(), key=lambda values: (values["other_recall"] or 0.0) - (values["other_false_presence"] or 0.0)
    )
    raise EvaluationError(
        f"not measured: on the true videos the detector of the other car has a recall of {best['other_recall']:.2f} "
        f"(needed: {LEAST_RECALL}), a false presence of {best['other_false_presence']:.2f} (allowed: "
        f"{MOST_FALSE_PRESENCE}) and is off by {best['other_centre_px'] or np.nan:.1f} px (allowed: "
        f"{MOST_CENTRE_SHARE * width:.1f}): it tells nothing here."
    )


def trustworthy(values: Mapping[str, float | None], width: int) -> bool:
    """Tell whether a detector's own figures are good enough to judge others."""
    recall, false, centre = (values[f"other_{name}"] for name in ("recall", "false_presence", "centre_px"))
    return (
        recall is not None and recall >= LEAST_RECALL
        and false is not None and false <= MOST_FALSE_PRESENCE
        and centre is not None and centre <= MOST_CENTRE_SHARE * width
    )  # fmt: skip
