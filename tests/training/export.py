"""Writes the trained weights as a folder that diffusers loads, in float16.

    python export.py --vae vae.safetensors --text text.safetensors --model DIR --tokenizer FOLDER --out www/models/built-in
"""

import argparse
from pathlib import Path

import networks
from diffusers import DDIMScheduler, StableDiffusionInstructPix2PixPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("vae", "text", "model", "tokenizer", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    vae, unet, text = networks.vae(), networks.unet(), networks.text_encoder()
    vae.load_state_dict(load_file(args.vae))
    unet.load_state_dict(load_file(args.model / "unet.safetensors"))
    missing, unexpected = text.load_state_dict(load_file(args.text), strict=False)
    if unexpected or any("position_ids" not in key for key in missing):
        raise SystemExit(f"{args.text}: {missing} {unexpected}")
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=vae.half(),
        text_encoder=text.half(),
        tokenizer=CLIPTokenizer.from_pretrained(args.tokenizer),
        unet=unet.half(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(args.out)
    files = sorted(path for path in args.out.rglob("*") if path.is_file())
    for path in files:
        print(f"{path.stat().st_size:10} {path.relative_to(args.out)}")
    total = sum(path.stat().st_size for path in files)
    print(f"{total:10} bytes in all")
    if total > 30_000_000:
        raise SystemExit("over 30 MB")


if __name__ == "__main__":
    main()
