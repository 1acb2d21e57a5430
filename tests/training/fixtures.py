"""Writes tests/fixtures/built_in: the held-out photographs, who made them, and edits of them by diffusers in float32.

    python fixtures.py --photos DIR --model ../../www/models/built-in --out ../fixtures/built_in
"""

import argparse
import json
from pathlib import Path

import edits
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from evaluate import to_tensor
from PIL import Image
from pictures import square
from safetensors.torch import save_file
from wordings import ASKED

# Photograph, edit and which of its held-out wordings; the seed is the place in this list.
CASES = [
    ("farm-cow", "snow", 0), ("erase-kingfisher", "invert", 0), ("animals-bison", "green_to_red", 1),
    ("skimage-chelsea", "sketch", 0), ("monuments-berlinCathedral", "night", 1), ("erase-red_panda", "mirror", 1),
    ("animals-scarlet_macaw", "nothing", 0),
]  # fmt: skip


def picture(x):
    return Image.fromarray((x.permute(1, 2, 0) * 255).round().byte().numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("photos", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    (args.out / "photos").mkdir(parents=True, exist_ok=True)
    sources = json.loads((args.photos / "sources.json").read_text())
    held = {name: source for name, source in sources.items() if source.pop("part") == "test"}
    for name in held:
        picture(square(args.photos / "test" / f"{name}.jpg", edits.SIZE)).save(args.out / "photos" / f"{name}.png", optimize=True)
    (args.out / "sources.json").write_text(json.dumps(dict(sorted(held.items())), indent=1, ensure_ascii=False) + "\n")

    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    defaults = json.loads((args.model / "defaults.json").read_text())
    cases, latents = [], {}
    for seed, (photo, name, wording) in enumerate(CASES):
        case = {"name": f"{name}", "photo": f"photos/{photo}.png", "prompt": ASKED[name][wording], "seed": seed}
        case |= {key: defaults[key] for key in ("numInferenceSteps", "guidanceScale", "imageGuidanceScale")}
        options = {
            "prompt": case["prompt"],
            "image": Image.open(args.out / case["photo"]),
            "num_inference_steps": case["numInferenceSteps"],
            "guidance_scale": case["guidanceScale"],
            "image_guidance_scale": case["imageGuidanceScale"],
        }
        out = pipeline(**options, generator=torch.Generator("cpu").manual_seed(seed), output_type="latent").images
        latents[name] = out.contiguous()
        with torch.no_grad():
            decoded = pipeline.vae.decode(out / pipeline.vae.config.scaling_factor).sample
        pixels = to_tensor((decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
        picture(pixels[0]).save(args.out / f"{name}.png", optimize=True)
        before = square(args.out / case["photo"], edits.SIZE)[None]
        strength, margin = edits.strength(name, before, pixels)
        cases.append(case | {"output": f"{name}.png", "strength": round(strength.item(), 4), "margin": margin})
        print(cases[-1], flush=True)
    (args.out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    save_file(latents, args.out / "latents.safetensors")


if __name__ == "__main__":
    main()
