"""The networks of the built-in model, in the classes and the layout of Stable Diffusion 1.5, only smaller.

A picture of 128 x 128 has latents of 32 x 32. `unet` has attention at that size on the way up alone: that is where a mirrored
pixel has to come from the other side, and 1024 positions that attend to 1024 others are what costs most.
"""

import torch
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

TEXT = 64
VOCABULARY = 49408
START, END = 49406, 49407
LENGTH = 77


def vae():
    return AutoencoderKL(
        block_out_channels=(32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=128,
        scaling_factor=1.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )


def unet():
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=8,
        out_channels=4,
        block_out_channels=(48, 96, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 4, 5),
        cross_attention_dim=TEXT,
        norm_num_groups=16,
    )


def text_encoder():
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=TEXT,
            intermediate_size=4 * TEXT,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=TEXT,
            hidden_act="quick_gelu",
            bos_token_id=START,
            eos_token_id=END,
            pad_token_id=END,
        )
    )


def text_state(model):
    """The weights of a text encoder under the names of transformers 4, which checkpoints on the Hub have."""
    state = model.state_dict()
    return {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in state.items()}


def load_text_state(model, state):
    """The way back, into the class of either version."""
    if not any(key.startswith("text_model.") for key in model.state_dict()):
        state = {key.removeprefix("text_model."): value for key, value in state.items()}
    model.load_state_dict(state, strict=False)
    return model


def normalise(model, mean, std):
    """Folds a shift and a scale of the latents' channels into the 1x1 convolutions at both ends of the autoencoder."""
    with torch.no_grad():
        weight, bias = model.quant_conv.weight, model.quant_conv.bias
        weight[:4] /= std.view(4, 1, 1, 1)
        bias[:4] = (bias[:4] - mean) / std
        bias[4:] -= 2 * std.log()
        weight, bias = model.post_quant_conv.weight, model.post_quant_conv.bias
        bias += weight[:, :, 0, 0] @ mean
        weight *= std.view(1, 4, 1, 1)
