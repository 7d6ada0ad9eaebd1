"""What a step sees: drawn from (seed, step, position) alone."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from model.codec import load_codec
from tasks.encoding.latents import LatentWindows
from tasks.training.batches import (
    batch_positions,
    collate,
    draw_training_pair,
    raymaps_of,
    seeded_generator,
    swap_agents,
)
from tests.tasks.training.conftest import TINY


@pytest.fixture
def window(state):
    return LatentWindows(state[1], "train")[1]


def pair_of(window, preset, *seed):
    return draw_training_pair(window, preset, seeded_generator(*seed))


def test_draws_depend_on_the_seed_the_step_and_the_position_alone(window):
    one, same = (
        pair_of(window, TINY, 0, 3, 1),
        pair_of(window, TINY, 0, 3, 1),
    )
    assert torch.equal(one.noise, same.noise)
    assert torch.equal(one.first_frames, same.first_frames)
    assert torch.equal(one.raymaps, same.raymaps)
    for numbers in ((1, 3, 1), (0, 4, 1), (0, 3, 2), (3, 0, 1)):
        assert not torch.equal(pair_of(window, TINY, *numbers).noise, one.noise)


def test_about_half_of_the_pairs_are_swapped_whole(window):
    preset = TINY.replace(image_noise_mean=-30.0, raymap_translation_m=0.0)
    straight = pair_of(window, preset.replace(swap_agents=False), 0)
    turned = 0
    for number in range(200):
        pair = pair_of(window, preset, 0, number)
        if torch.equal(pair.latents, straight.latents):
            assert torch.equal(pair.raymaps, straight.raymaps)
        else:
            turned += 1
            assert torch.equal(pair.latents, straight.latents.flip(0))
            assert torch.allclose(pair.first_frames, straight.first_frames.flip(0), atol=1e-5)
            assert torch.allclose(pair.raymaps, straight.raymaps.flip(0), atol=1e-6)
    assert 70 < turned < 130


def test_latents_are_drawn_from_the_posterior(window):
    wide = dataclasses.replace(window, logvar=torch.full_like(window.mean, 2 * math.log(2)))
    preset = TINY.replace(swap_agents=False)
    drawn = torch.stack([pair_of(wide, preset, 0, number).latents for number in range(20)])
    around = drawn - window.mean.float()
    assert float(around.mean()) == pytest.approx(0, abs=0.05)
    assert float(around.std()) == pytest.approx(2, abs=0.05)


def test_one_translation_moves_all_of_a_pairs_rays_alike(window):
    """Trap 23: common to both agents, all views and all frames; directions stay."""
    preset = TINY.replace(swap_agents=False)
    moved = pair_of(window, preset, 5).raymaps - raymaps_of(window, preset)
    by_frame = moved.unflatten(2, (4, 6))
    assert by_frame[:, :, :, :3].abs().max() == 0
    shift = by_frame[:, :, :, 3:]
    assert torch.allclose(shift, shift[:1, :1, :1, :, :1, :1].expand_as(shift), atol=1e-5)
    assert shift.abs().max() > 0.01


def test_noise_is_added_to_pixels_before_they_are_encoded(window, state):
    """Trap 19."""
    codec = load_codec(TINY.codec, state[1])
    preset = TINY.replace(swap_agents=False)
    noisy = pair_of(window, preset, 1)
    batch = collate([noisy], codec, torch.device("cpu"), preset)
    mean, _ = codec.encode(noisy.first_frames[:, :, None])
    assert torch.equal(batch.image_latents[0], mean)
    assert not torch.allclose(batch.image_latents[0], window.mean[:, :1].float(), atol=1e-2)
    quiet = preset.replace(image_noise=False)
    clean = collate([pair_of(window, quiet, 1)], codec, torch.device("cpu"), quiet)
    assert torch.equal(clean.image_latents[0], window.mean[:, :1].float())


@pytest.mark.parametrize("image_noise", [True, False])
def test_a_picture_beside_all_frames_stands_still(window, state, image_noise):
    """The latents of the first frame, repeated: with its noise, and with clean pixels where there is none."""
    codec = load_codec(TINY.codec, state[1])
    preset = TINY.replace(swap_agents=False, image_condition="all", image_noise=image_noise)
    pair = pair_of(window, preset, 1)
    batch = collate([pair], codec, torch.device("cpu"), preset)
    assert batch.image_latents.shape == batch.latents.shape
    video = codec.decode(batch.image_latents[0])
    assert float((video[:, :, 1:] - pair.first_frames[:, :, None]).abs().mean()) < 0.2
    alone, _ = codec.encode(pair.first_frames[:, :, None])
    assert torch.equal(batch.image_latents[0][:, :1], alone)


def test_dropped_images_are_zero(window, state):
    codec = load_codec(TINY.codec, state[1])
    pairs = [pair_of(window, TINY.replace(image_dropout=0.5), 0, number) for number in range(40)]
    batch = collate(pairs, codec, torch.device("cpu"), TINY)
    dropped = batch.image_latents.flatten(1).abs().sum(1) == 0
    assert dropped.tolist() == [not bool(pair.image_kept) for pair in pairs]
    assert 8 < int(dropped.sum()) < 32


def test_a_variance_is_sampled(window):
    from dataclasses import replace

    wide = replace(window, logvar=torch.zeros_like(window.mean))
    preset = TINY.replace(swap_agents=False)
    sampled = pair_of(wide, preset, 2).latents - window.mean.float()
    assert float(sampled.std()) == pytest.approx(1.0, abs=0.1)


def test_swapping_twice_is_nothing(window):
    back = swap_agents(swap_agents(window))
    assert torch.equal(back.mean, window.mean)
    assert torch.equal(back.c2w, window.c2w)


@pytest.mark.parametrize(("micro", "processes"), [(1, 1), (2, 2), (4, 2), (1, 8)])
def test_processes_share_the_batch_without_gap_or_overlap(micro, processes):
    parts = [batch_positions(8, micro, processes, rank) for rank in range(processes)]
    assert sorted(itertools.chain(*itertools.chain(*parts))) == list(range(8))
    assert all(len(part) == 8 // (micro * processes) for part in parts)
