"""The schedule is CogVideoX-5B's, the loss is v-prediction in float32."""

from __future__ import annotations

import types

import pytest
import torch

from model.objective import (
    BUCKET_NAMES,
    Batch,
    add_image_noise,
    drop_images,
    image_condition,
    loss_by_bucket,
    noise_schedule,
    put_given_frames,
    sample_timesteps,
    training_loss,
)
from model.presets import ObjectiveConfig

GENERATOR = torch.Generator()


def test_the_last_timestep_is_pure_noise_and_v_is_minus_the_clip():
    schedule = noise_schedule(ObjectiveConfig())
    assert float(schedule.alphas_cumprod[-1]) == 0
    clip, noise = torch.randn(2, 3), torch.randn(2, 3)
    at_end = torch.full((2,), 999)
    assert torch.equal(schedule.add_noise(clip, noise, at_end), noise)
    torch.testing.assert_close(schedule.get_velocity(clip, noise, at_end), -clip)
    schedule.set_timesteps(1)
    assert schedule.timesteps.tolist() == [999]  # trailing: one step starts from pure noise
    schedule.set_timesteps(20)
    assert int(schedule.timesteps[0]) == 999


def loss_of(model, dtype=torch.float32, timestep=400):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 2, 3, 4, 2, 2, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    raymaps, text = torch.zeros(2, 2, 3, 24, 2, 2), torch.zeros(1, 1, 8)
    batch = Batch(latents, latents[:, :, :1], raymaps, torch.full((2,), timestep), noise)
    return training_loss(model, noise_schedule(ObjectiveConfig()), batch, text, dtype), latents, noise


class Oracle(torch.nn.Module):
    """Answers v exactly, from the clip and noise it was told."""

    def __init__(self, latents, noise, timestep):
        super().__init__()
        self.answer = noise_schedule(ObjectiveConfig()).get_velocity(latents, noise, torch.tensor([timestep, timestep]))

    def forward(self, hidden_states, text, timestep, raymaps):
        return types.SimpleNamespace(sample=self.answer)


def test_a_model_that_knows_v_has_no_loss():
    _, latents, noise = loss_of(lambda *a, **k: types.SimpleNamespace(sample=torch.zeros(2, 2, 3, 4, 2, 2)))
    loss, *_ = loss_of(Oracle(latents, noise, 400))
    assert float(loss.mean) < 1e-12


def test_the_model_sees_noise_and_condition_in_its_dtype_and_the_loss_is_float32():
    seen = {}

    def model(inputs, text, timestep, raymaps):
        seen.update(inputs=inputs, text=text, raymaps=raymaps)
        return types.SimpleNamespace(sample=torch.zeros(2, 2, 3, 4, 2, 2, dtype=inputs.dtype))

    loss, latents, _ = loss_of(model, torch.bfloat16, timestep=0)
    assert {value.dtype for value in seen.values()} == {torch.bfloat16}
    assert loss.mean.dtype == torch.float32
    assert seen["inputs"].shape == (2, 2, 3, 8, 2, 2)
    assert seen["inputs"][:, :, 1:, 4:].abs().max() == 0  # zeros after the first frame
    assert torch.equal(seen["inputs"][:, :, :1, 4:], latents[:, :, :1].bfloat16())
    assert not torch.equal(seen["inputs"][:, :, :, :4], latents.bfloat16())  # sigma(0) > 0 (trap 18: noise in float32)


def test_timesteps_prefer_the_noisy_end_with_a_bias():
    uniform = sample_timesteps(20_000, 1.0, GENERATOR.manual_seed(0)).float()
    biased = sample_timesteps(20_000, 2.0, GENERATOR.manual_seed(0)).float()
    assert abs(float(uniform.mean()) - 499.5) < 10
    assert abs(float(biased.mean()) - 2 / 3 * 1000) < 10
    assert int(biased.max()) == 999


def test_image_noise_has_the_papers_size_and_dropout_its_share():
    images = torch.zeros(4000, 3, 4, 4)
    sigma = add_image_noise(images, -3.0, 0.5, GENERATOR.manual_seed(0)).flatten(1).std(1)
    assert abs(float(sigma.log().mean()) + 3) < 0.05
    dropped = drop_images(torch.ones(4000, 2, 1, 4, 2, 2), 0.05, GENERATOR.manual_seed(0))
    share = float((dropped.flatten(1).max(1).values == 0).float().mean())
    assert abs(share - 0.05) < 0.02


def test_condition_and_buckets():
    assert image_condition(torch.ones(1, 2, 1, 4, 2, 2), 3).sum((3, 4, 5)).tolist() == [[[16, 0, 0], [16, 0, 0]]]
    still = torch.randn(1, 2, 3, 4, 2, 2)
    assert torch.equal(image_condition(still, 3), still)
    loss = types.SimpleNamespace(per_pair=torch.tensor([1.0, 2.0, 4.0]), timesteps=torch.tensor([0, 999, 760]))
    assert BUCKET_NAMES == ["t000-250", "t250-500", "t500-750", "t750-1000"]
    assert loss_by_bucket(loss).tolist() == [[1, 1], [0, 0], [0, 0], [6, 2]]


@pytest.mark.parametrize("count", [1, 7])
def test_timesteps_repeat_with_the_seed(count):
    draws = [sample_timesteps(count, 2.0, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)


X = ObjectiveConfig(prediction="x", first_frame="given")


def x_loss(error: float, timestep: int):
    """The loss of a model that returns the clean latents of four frames with an error, and frame 0 as zeros."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 2, 4, 4, 2, 2, generator=generator)
    seen = {}

    def model(inputs, text, timestep, raymaps):
        seen["inputs"] = inputs
        return types.SimpleNamespace(
            sample=torch.cat([torch.zeros_like(latents[:, :, :1]), latents[:, :, 1:] + error], 2)
        )

    image = latents[:, :, :1] + 0.1  # an image latent that differs from the clip's, as with image noise
    batch = Batch(latents, image, torch.zeros(2, 2, 4, 24, 2, 2), torch.full((2,), timestep), noise, given_frames=1)
    return training_loss(model, noise_schedule(X), batch, torch.zeros(1, 1, 8), torch.float32), seen["inputs"], image


def test_a_model_that_knows_x_has_no_loss_and_the_given_frame_has_none():
    loss, inputs, image = x_loss(0.0, 400)
    assert float(loss.mean) < 1e-12
    assert torch.equal(inputs[:, :, :1, :4], image)  # given as it is, in noise's place
    assert not torch.equal(inputs[:, :, 1:, :4], image.expand(-1, -1, 3, -1, -1, -1))


@pytest.mark.parametrize(("timestep", "weight"), [(999, 1.0), (0, 20.0)])
def test_errors_of_x_weigh_as_those_of_v_up_to_a_bound(timestep, weight):
    loss, *_ = x_loss(0.5, timestep)
    torch.testing.assert_close(loss.per_pair, torch.full((2,), 0.25 * weight))


def test_the_middle_weighs_what_v_weighs():
    """v = sqrt(a) noise - sqrt(1 - a) x: with the same noisy latents an error e of x is e / sqrt(1 - a) of v."""
    a = float(noise_schedule(X).alphas_cumprod[600])
    loss, *_ = x_loss(0.5, 600)
    torch.testing.assert_close(loss.per_pair, torch.full((2,), 0.25 / (1 - a)))


def test_a_change_of_nothing_is_the_picture_standing_still():
    latents, noise, still = torch.randn(3, 2, 2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))

    def silent(inputs, text, timestep, raymaps):
        return types.SimpleNamespace(sample=torch.zeros_like(latents))

    batch = Batch(latents, still, torch.zeros(2, 2, 3, 24, 2, 2), torch.full((2,), 999), noise, 1, True)
    loss = training_loss(silent, noise_schedule(X), batch, torch.zeros(1, 1, 8), torch.float32)
    torch.testing.assert_close(loss.per_pair, ((latents - still)[:, :, 1:] ** 2).flatten(1).mean(1))


def test_given_frames_take_the_place_of_noise():
    latents, image = torch.zeros(1, 2, 3, 1, 1, 1), torch.ones(1, 2, 1, 1, 1, 1)
    assert put_given_frames(latents, image, 1).flatten().tolist() == [1, 0, 0, 1, 0, 0]
    assert put_given_frames(latents, image, 0) is latents
