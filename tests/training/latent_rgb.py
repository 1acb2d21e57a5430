"""Fits pictures to latents linearly, for previews without the decoder, and writes it into the model's `defaults.json`.

This autoencoder's latents are far from linear in colour, so such a preview shows light and dark, and little colour.

    python latent_rgb.py --photos DIR --model ../../www/models/built-in
"""

import argparse
import json
from pathlib import Path

import edits
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pictures import square


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(args.model, subfolder="vae", torch_dtype=torch.float32)
    photos = torch.stack([square(path, edits.SIZE) for path in sorted((args.photos / "train").glob("*.jpg"))[::3]])
    kinds = [photos, *(edits.apply(name, photos[i::8]) for i, name in enumerate(("invert", "night", "sepia", "darker", "colder")))]
    pictures = torch.cat(kinds)
    with torch.no_grad():
        z = torch.cat([vae.encode(part * 2 - 1).latent_dist.mode() for part in pictures.split(8)])
    z = z * vae.config.scaling_factor
    columns = torch.cat([z, torch.ones_like(z[:, :1])], 1).permute(0, 2, 3, 1).reshape(-1, 5)
    colours = F.avg_pool2d(pictures, 4).permute(0, 2, 3, 1).reshape(-1, 3)
    found = torch.linalg.lstsq(columns, colours).solution
    error = (columns @ found - colours).abs().mean()
    print(f"mean error {error:.4f} of 1")
    path = args.model / "defaults.json"
    defaults = json.loads(path.read_text())
    rounded = [[round(x, 4) for x in row] for row in found.tolist()]
    # A pixel is, in 0..1, the sum of its four scaled latents times these, plus the bias.
    defaults["latentToRgb"] = {"factors": rounded[:4], "bias": rounded[4]}
    path.write_text(json.dumps(defaults, indent=2) + "\n")


if __name__ == "__main__":
    main()
