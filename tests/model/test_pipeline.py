"""The pipeline as diffusers' users know them: saved, loaded, moved, watched, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler
from PIL import Image

from model.bicycle import drive
from model.build import build_pipeline, build_transformer
from model.codec import LinearCodec, VaeCodec, encode_pictures, split_into_blocks
from model.pipeline import PipelineError, ShareVersePipeline
from model.presets import Preset
from model.weights import WeightsError

PRESET = Preset.load("tiny")
HEIGHT, WIDTH = PRESET.video.height, PRESET.video.width
ROOT = Path(__file__).parents[2]


def pictures(agents=2):
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(agents)]


def trajectories(frames=9, agents=2):
    return [drive([5.0 * agent, 0, 0, 0, 0, 0], [3.0] * frames, [0.2] * frames, 10.0) for agent in range(agents)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipeline() -> ShareVersePipeline:
    """Random weights everywhere, so that cameras and the other agent matter."""
    transformer, codec = build_transformer(PRESET).eval(), LinearCodec(PRESET.codec.latent_channels)
    generator = seeded(1)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        first, rest = split_into_blocks(torch.randn(1, 3, 9, 64, 64, generator=generator))
        codec.first_basis.copy_(torch.linalg.svd(first.flatten(0, -2))[2][:8].T)
        codec.rest_basis.copy_(torch.linalg.svd(rest.flatten(0, -2))[2][:8].T)
    made = build_pipeline(PRESET, transformer, codec, torch.randn(1, 1, 8, generator=generator), fps=20.0)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(path)
    return path


def run(pipe, **options):
    options = {"num_inference_steps": 2, "generator": seeded(), "output_type": "np"} | options
    return pipe(pictures(), trajectories(), **options)


def test_saved_and_loaded_in_a_fresh_process_it_generates_the_same_bits(pipeline, folder, tmp_path):
    np.savez(tmp_path / "given.npz", pictures=np.stack(pictures()), trajectories=np.stack(trajectories()))
    code = f"""
import numpy as np, torch
from model.pipeline import ShareVersePipeline
given = np.load({str(tmp_path / "given.npz")!r})
pipe = ShareVersePipeline.from_pretrained({str(folder)!r})
output = pipe(pictures=list(given["pictures"]), trajectories=given["trajectories"], num_inference_steps=2,
              generator=torch.Generator().manual_seed(0), output_type="np")
np.save({str(tmp_path / "videos.npy")!r}, output.videos)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    ours = run(pipeline).videos
    assert ours.shape == (2, 9, HEIGHT, WIDTH, 3)
    assert np.ptp(ours) > 0.1
    assert np.array_equal(np.load(tmp_path / "videos.npy"), ours)


def test_an_untrained_model_that_predicts_a_change_copies_its_pictures(pipeline):
    preset = PRESET.replace(prediction="change", first_frame="given", image_condition="all")
    codec, text = pipeline.codec, torch.zeros(1, 1, 8)
    copying = build_pipeline(preset, build_transformer(preset).eval(), codec, text)
    copying.set_progress_bar_config(disable=True)
    latents = run(copying, num_inference_steps=3, output_type="latent").videos
    first = torch.stack([torch.from_numpy(picture).movedim(-1, 0) for picture in pictures()])[None] / 127.5 - 1
    torch.testing.assert_close(latents, encode_pictures(codec, first, 9)[0], atol=1e-4, rtol=1e-4)


def test_a_folder_holds_all_that_the_model_must_know_and_no_pickle(pipeline, folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "ShareVersePipeline"
    assert (index["frames"], index["height"], index["width"], index["views"]) == (9, HEIGHT, WIDTH, "four")
    assert index["raymap"]["unit_m"] == 10.0
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
    loaded = ShareVersePipeline.from_pretrained(folder)
    assert loaded.components.keys() == {"transformer", "codec", "scheduler", "text"}
    assert loaded.config.fps == 20.0
    assert torch.equal(loaded.text.embedding, pipeline.text.embedding)


def test_components_and_options_can_be_replaced(folder, pipeline):
    scheduler = CogVideoXDPMScheduler.from_config(pipeline.scheduler.config)
    loaded = ShareVersePipeline.from_pretrained(folder, scheduler=scheduler, sampling_steps=3)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.scheduler is scheduler
    videos = run(loaded, num_inference_steps=None).videos
    assert np.isfinite(videos).all()
    assert np.array_equal(videos, run(loaded, num_inference_steps=3).videos)
    assert not np.array_equal(videos, run(pipeline, num_inference_steps=3).videos)


def test_half_precision_and_to(folder, pipeline):
    loaded = ShareVersePipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    loaded.set_progress_bar_config(disable=True)
    assert (loaded.transformer.dtype, loaded.codec.dtype) == (torch.bfloat16, torch.float32)
    assert np.abs(run(loaded).videos - run(pipeline).videos).mean() < 0.05
    loaded.to("cpu", torch.bfloat16)
    assert loaded.codec.dtype == torch.bfloat16
    assert np.isfinite(run(loaded).videos).all()


def test_all_kinds_of_output_are_the_same_video(pipeline):
    arrays, tensors, images = (run(pipeline, output_type=kind) for kind in ("np", "pt", "pil"))
    assert np.array_equal(tensors.videos.movedim(2, -1).numpy(), arrays.videos)
    assert isinstance(images.videos[1][8], Image.Image)
    assert np.abs(np.asarray(images.videos[1][8]) / 255 - arrays.videos[1, 8]).max() < 0.003
    assert list(arrays.views) == ["front", "rear", "left", "right"]
    assert np.array_equal(arrays.views["left"], arrays.videos[:, :, HEIGHT // 2 :, : WIDTH // 2])
    assert images.views["rear"][0][0].size == (WIDTH // 2, HEIGHT // 2)
    latents = run(pipeline, output_type="latent").videos
    assert latents.shape == (2, *PRESET.latent_shape)
    decoded = ((pipeline.decode(latents[None])[0] + 1) / 2).clamp(0, 1)
    assert torch.equal(decoded.transpose(1, 2), tensors.videos)
    (videos, _) = run(pipeline, return_dict=False)
    assert np.array_equal(videos, arrays.videos)


def test_long_trajectories_are_rolled_out_from_the_last_frame(pipeline):
    options = {"num_inference_steps": 1, "generator": seeded(3), "output_type": "pt"}
    long = pipeline(pictures(), trajectories(17), **options).videos
    assert long.shape == (2, 17, 3, HEIGHT, WIDTH)
    generator = seeded(3)
    first = pipeline(pictures(), [each[:9] for each in trajectories(17)], **options | {"generator": generator}).videos
    assert torch.equal(long[:, :9], first)
    second = pipeline(
        list(first[:, -1]), [each[8:] for each in trajectories(17)], **options | {"generator": generator}
    ).videos
    torch.testing.assert_close(long[:, 9:], second[:, 1:], atol=1e-4, rtol=0)
    latents = pipeline(pictures(), trajectories(17), **options | {"output_type": "latent"}).videos
    assert latents.shape[1] == 2 * PRESET.latent_shape[0]


def test_cameras_and_the_seed_matter(pipeline):
    base = run(pipeline).videos
    assert np.array_equal(run(pipeline).videos, base)
    assert not np.array_equal(run(pipeline, generator=seeded(1)).videos, base)
    turned = [trajectories()[0], trajectories()[1] + [0, 0, 0, 0, 30, 0]]
    other = pipeline(pictures(), turned, num_inference_steps=2, generator=seeded(), output_type="np").videos
    assert not np.array_equal(other[0], base[0])


def test_a_callback_sees_every_step_and_may_change_latents(pipeline):
    seen = []

    def watch(pipe, step, timestep, given):
        seen.append((step, int(timestep), tuple(given["latents"].shape)))
        return {"latents": torch.zeros_like(given["latents"])}

    zeros = run(pipeline, callback_on_step_end=watch, output_type="latent").videos
    assert [step for step, _, _ in seen] == [0, 1]
    assert seen[0][2] == (1, 2, *PRESET.latent_shape)
    assert not zeros.any()


def test_cogvideox_vae_is_a_component_too(pipeline, tmp_path):
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=8, layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    made = build_pipeline(PRESET, pipeline.transformer, VaeCodec(vae), torch.zeros(1, 1, 8))
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(tmp_path)
    loaded = ShareVersePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded.codec, AutoencoderKLCogVideoX)
    options = {"num_inference_steps": 1}
    assert np.array_equal(run(loaded, **options).videos, run(made, **options).videos)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": True}, "num_inference_steps is True"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5"),
        ({"output_type": "gif"}, "output_type is 'gif'"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "cannot be given 'noise'"),
    ],
)
def test_unknown_options_are_refused(pipeline, options, sentence):
    with pytest.raises(PipelineError, match=sentence):
        run(pipeline, **options)


def test_values_that_are_no_numbers_are_refused(pipeline):
    def spoil(pipe, step, timestep, given):
        return {"latents": given["latents"] * float("nan")}

    with pytest.raises(PipelineError, match="no numbers"):
        run(pipeline, callback_on_step_end=spoil)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("model_index.json", "{", "no readable JSON"),
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "holds a 'StableDiffusionPipeline'"),
        ("model_index.json", {"codec": ["os", "system"]}, "the codec is a 'system'"),
        ("model_index.json", {"frames": 10}, "describes no video"),
        ("model_index.json", {"raymap": {"colour": 1}}, "has the raymap"),
        ("model_index.json", {"fps": -1}, "'fps' -1"),
        ("model_index.json", {"surprise": 1}, "'surprise' 1"),
        ("model_index.json", {"predicts_change": 1}, "'predicts_change' 1"),
        ("model_index.json", {"given_frames": 2}, "'given_frames' 2"),
        ("model_index.json", {"given_frames": True}, "'given_frames' True"),
        ("model_index.json", {"image_condition": "some"}, "'image_condition' 'some'"),
        ("transformer/diffusion_pytorch_model.safetensors", None, "holds no diffusion_pytorch_model.safetensors"),
        ("codec/diffusion_pytorch_model.safetensors", "junk", "cannot be read"),
        ("text/config.json", {"tokens": 7}, "as \\(1, 1, 8\\) where its config.json says \\(1, 7, 8\\)"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}, "describes no CogVideoXDDIMScheduler"),
    ],
)
def test_a_damaged_folder_is_one_sentence(pipeline, tmp_path, file, change, sentence):
    pipeline.save_pretrained(tmp_path)
    if change is None:
        (tmp_path / file).unlink()
    else:
        text = json.dumps(json.loads((tmp_path / file).read_text()) | change) if isinstance(change, dict) else change
        (tmp_path / file).write_text(text)
    with pytest.raises(WeightsError, match=sentence) as caught:
        ShareVersePipeline.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
