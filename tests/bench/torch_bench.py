"""The benchmarks of `cargo xtask bench` in PyTorch and diffusers, for a side-by-side on one machine.

    python3 torch_bench.py [--f16] [--channels-last] [--tf32] [--json FILE]

Needs torch with CUDA, diffusers and transformers. Random weights, nothing is downloaded.
"""

import argparse
import json
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel


def sd_unet():
    return UNet2DConditionModel(
        sample_size=64, in_channels=8, out_channels=4, cross_attention_dim=768,
        attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280),
    )


def sdxl_unet():
    return UNet2DConditionModel(
        sample_size=96, in_channels=8, out_channels=4, cross_attention_dim=2048,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
        use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )


def sd_vae():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
    )


def sd_text():
    return CLIPTextModel(CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768,
    ))


def milliseconds(run, rounds=3, count=10):
    """Of one run, at best of some rounds, as `src/bench` measures."""
    for _ in range(3):
        run()
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            run()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / count)
    return best * 1e3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--f16", action="store_true")
    parser.add_argument("--tf32", action="store_true", help="tensor cores for float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    torch.backends.cudnn.allow_tf32 = options.tf32
    dtype = torch.float16 if options.f16 else torch.float32
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    place = dict(device="cuda", dtype=dtype)
    rows = []

    def row(name, run):
        rows.append({"name": name, "ms": milliseconds(run)})
        print(f"{name:46} {rows[-1]['ms']:9.3f} ms", flush=True)

    def ready(model):
        return model.to(**place).eval().to(memory_format=layout)

    def picture(*shape):
        return torch.randn(*shape, **place).contiguous(memory_format=layout)

    print(f"{torch.cuda.get_device_name()}, {dtype}, PyTorch {torch.__version__}")
    with torch.inference_mode():
        unet, timestep = ready(sd_unet()), torch.tensor(500, device="cuda")
        for batch in (3, 2, 1):
            x, text = picture(batch, 8, 64, 64), torch.randn(batch, 77, 768, **place)
            row(f"UNet step, batch {batch}", lambda: unet(x, timestep, text).sample)
        del unet
        vae = ready(sd_vae())
        for side in (512, 768):
            latents, image = picture(1, 4, side // 8, side // 8), picture(1, 3, side, side)
            row(f"VAE decode {side}", lambda: vae.decode(latents).sample)
            row(f"VAE encode {side}", lambda: vae.encode(image).latent_dist.mode())
        del vae
        text, ids = sd_text().to(**place).eval(), torch.full((2, 77), 5, device="cuda")
        row("text encoder, 2 texts", lambda: text(ids).last_hidden_state)
        del text
        unet = ready(sdxl_unet())
        for batch in (3, 1):
            x, text = picture(batch, 8, 96, 96), torch.randn(batch, 77, 2048, **place)
            added = {
                "text_embeds": torch.randn(batch, 1280, **place),
                "time_ids": torch.full((batch, 6), 768.0, **place),
            }
            row(
                f"SDXL UNet step at 768, batch {batch}",
                lambda: unet(x, timestep, text, added_cond_kwargs=added).sample,
            )
    print(f"most memory held: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    if options.json:
        report = {"adapter": torch.cuda.get_device_name(), "dtype": str(dtype), "rows": rows}
        with open(options.json, "w") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
