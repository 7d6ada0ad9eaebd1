"""Store T5's embedding of the empty prompt once, so that training never loads T5 (paper, section 5.1).

    python -m model.empty_prompt THUDM/CogVideoX-5b-I2V empty_prompt.safetensors

BASE is a CogVideoX pipeline: its folder, or its name on the Hugging Face hub. The file holds `empty` [226, 4096]
float32; the preset's `text_embedding` names it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import T5EncoderModel

from model.weights import INVALID_CONFIG_ERRORS, is_finite

TOKENS = 226


class EmptyPromptError(RuntimeError):
    """The text encoder cannot be loaded."""


@torch.no_grad()
def empty_prompt(base: str, tokens: int = TOKENS) -> torch.Tensor:
    """Return the embedding [tokens, D] float32 of "" as CogVideoX's pipelines compute it: padded, without a mask
    (trap 16: padded empty prompt).

    T5's tokenizer is not needed: it turns "" into the end token and padding.
    """
    try:
        encoder = T5EncoderModel.from_pretrained(base, subfolder="text_encoder", use_safetensors=True).eval()
    except (OSError, SafetensorError, *INVALID_CONFIG_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise EmptyPromptError(
            f"{base!a} has no text_encoder/ that can be loaded ({reason}): name the folder or the hub name of a "
            "CogVideoX pipeline."
        ) from error
    ids = torch.full((1, tokens), encoder.config.pad_token_id)
    ids[0, 0] = encoder.config.eos_token_id
    embedding = encoder(ids)[0][0].float()
    if not is_finite(embedding):
        raise EmptyPromptError(f"{base!a} has a text_encoder/ that gives values that are not finite: load it again.")
    return embedding


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python -m model.empty_prompt BASE OUT.safetensors", file=sys.stderr)
        return 2
    target = Path(sys.argv[2])
    if target.is_dir() or not target.parent.is_dir():
        print(f"{target} is no place for a file: name one in an existing folder.", file=sys.stderr)
        return 1
    try:
        embedding = empty_prompt(sys.argv[1])
        save_file({"empty": embedding.contiguous()}, target)
    except EmptyPromptError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as error:
        print(f"{target} cannot be written ({error}): name another file.", file=sys.stderr)
        return 1
    print(f"{sys.argv[2]}: empty {tuple(embedding.shape)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
