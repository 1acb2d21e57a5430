"""Looks for the guidance and the sampler that suit the model, on held-out photographs and wordings, in large batches.

    python scan.py --photos DIR --prompts prompts.npz --vae vae.safetensors --text text.safetensors --model DIR --out DIR

`evaluate.py` gives the figures of the model card, one edit at a time through diffusers' pipeline; this only chooses for it.
"""

import argparse
import json
import time
from pathlib import Path

import diffusers
import edits
import networks
import numpy as np
import torch
from PIL import Image
from pictures import square
from safetensors.torch import load_file
from wordings import EDITS

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}


def scheduler(name):
    extra = {"clip_sample": False, "set_alpha_to_one": True} if name == "DDIM" else {}
    return getattr(diffusers.schedulers, f"{name}Scheduler")(**NOISE, **extra)


@torch.no_grad()
def sample(unet, vae, name, steps, z, text, empty, g, gi, seed=0):
    """Edits latents [B, 4, 32, 32] by text [B, 77, C] as the pipeline does; pictures [B, 3, H, W] in 0..1."""
    plan = scheduler(name)
    plan.set_timesteps(steps, device=z.device)
    draw = torch.Generator("cpu").manual_seed(seed)
    x = torch.randn(z.shape, generator=draw).to(z.device) * plan.init_noise_sigma
    guided = g > 1 and gi >= 1
    words = torch.cat([text, empty.expand_as(text), empty.expand_as(text)]) if guided else text
    pictures = torch.cat([z, z, torch.zeros_like(z)]) if guided else z
    torch.manual_seed(seed)
    for t in plan.timesteps:
        noisy = torch.cat([x] * 3) if guided else x
        noisy = torch.cat([plan.scale_model_input(noisy, t), pictures], 1)
        guess = unet(noisy, t, words, return_dict=False)[0].float()
        if guided:
            both, picture, neither = guess.chunk(3)
            guess = neither + g * (both - picture) + gi * (picture - neither)
        x = plan.step(guess, t, x, return_dict=False)[0]
    return (vae.decode(x, return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)


def sheet(columns, path):
    """Saves [n, B, 3, H, W] as n rows of B pictures."""
    rows = torch.cat([torch.cat(list(row), 2) for row in columns], 1)
    Image.fromarray((rows.permute(1, 2, 0).cpu().numpy() * 255).round().astype("uint8")).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("photos", "prompts", "vae", "text", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--deadline", type=float, help="stop after this time of the clock")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae, unet, text = networks.vae(), networks.unet(), networks.text_encoder()
    vae.load_state_dict({k: v.float() for k, v in load_file(args.vae).items()})
    unet.load_state_dict({k: v.float() for k, v in load_file(args.model / "unet.safetensors").items()})
    networks.load_text_state(text, {k: v.float() for k, v in load_file(args.text).items()})
    vae, unet, text = (m.to(device).eval() for m in (vae, unet, text))
    prompts = np.load(args.prompts)
    tokens, empty = (torch.from_numpy(prompts[k]).long().to(device) for k in ("test", "empty"))
    photos = torch.stack([square(p, edits.SIZE) for p in sorted((args.photos / "test").glob("*.jpg"))]).to(device)
    args.out.mkdir(parents=True, exist_ok=True)
    count = len(photos)
    with torch.no_grad():
        z = vae.encode(photos * 2 - 1).latent_dist.mode()
        plain = vae.decode(z, return_dict=False)[0].div(2).add(0.5).clamp(0, 1)
        # Wording i for photograph i, in turn.
        turn = torch.arange(count, device=device) % tokens.shape[1]
        said = torch.stack([text(tokens[k][turn]).last_hidden_state for k in range(len(EDITS))])
        nothing = text(empty[None]).last_hidden_state
        draw = torch.Generator(device).manual_seed(3)
        targets = torch.stack([edits.apply(name, photos, draw) for name in EDITS])
        through = torch.stack([vae.decode(vae.encode(t * 2 - 1).latent_dist.mode(), return_dict=False)[0].div(2).add(0.5).clamp(0, 1) for t in targets])
    result = {"vae_ssim": {n: edits.ssim(through[k], targets[k]).mean().item() for k, n in enumerate(EDITS)}, "runs": []}
    fit = torch.stack([edits.fitting(n, photos) for n in EDITS])
    print("VAE alone", np.mean(list(result["vae_ssim"].values())), json.dumps({n: round(v, 2) for n, v in result["vae_ssim"].items()}))

    def run(name, steps, g, gi):
        out = sample(unet, vae, name, steps, z.repeat(len(EDITS), 1, 1, 1), said.flatten(0, 1), nothing, g, gi)
        return out.view(len(EDITS), count, *photos.shape[1:])

    def judge(out):
        like = torch.stack([edits.ssim(out[k], targets[k]) for k in range(len(EDITS))])
        moved = [edits.strength(n, photos, out[k]) for k, n in enumerate(EDITS)]
        share = {n: (s > m)[fit[k]].float().mean().item() for k, (n, (s, m)) in enumerate(zip(EDITS, moved))}
        return like.mean(1).tolist(), share, torch.stack([s for s, _ in moved])

    tries = [("DDIM", 12, 1, 1), ("DDIM", 12, 1.5, 1.2), ("DDIM", 12, 2, 1.2), ("DDIM", 12, 1.25, 1), ("DDIM", 12, 3, 1.5),
             ("EulerAncestralDiscrete", 12, 1.5, 1.2), ("DPMSolverMultistep", 12, 1.5, 1.2), ("DDIM", 12, 2, 1.5), ("DDIM", 20, 1.5, 1.2)]  # fmt: skip
    knobs = [("text", [(1.25, 1.2), (2, 1.2), (3.5, 1.2)]), ("image", [(1.5, 1), (1.5, 1.4), (1.5, 2)])]

    def save():
        (args.out / "scan.json").write_text(json.dumps(result))
        return args.deadline is not None and time.time() > args.deadline

    for name, steps, g, gi in tries:
        out = run(name, steps, g, gi)
        like, share, _ = judge(out)
        result["runs"].append({"scheduler": name, "steps": steps, "g": g, "gi": gi, "ssim": dict(zip(EDITS, like)), "share": share})
        print(f"{name} {steps} g {g} gi {gi}: SSIM {np.mean(like):.3f} nothing {like[-1]:.3f} share {np.mean(list(share.values())):.3f} least {min(share.values()):.2f}",
              [f"{n} {v:.2f}" for n, v in share.items() if v < 0.85], flush=True)
        if name == "DDIM" and steps == 12 and (g, gi) in [(1, 1), (1.5, 1.2), (3, 1.5)]:
            print(" ".join(f"{n} {v:.2f}" for n, v in zip(EDITS, like)), flush=True)
            sheet(torch.cat([photos[None, :10], plain[None, :10], out[:, :10]]), args.out / f"sheet_{g}_{gi}.png")
        if save():
            return
    for knob, values in knobs:
        outs = [run("DDIM", 12, g, gi) for g, gi in values]
        if knob == "text":
            # How far towards the target, as a share of the way from the original to it.
            way = targets - photos
            values_of = [((out - photos) * way).sum((2, 3, 4)) / (way**2).sum((2, 3, 4)).clamp(min=1e-6) for out in outs]
        else:
            values_of = [torch.stack([-(out[k] - photos).abs().mean((1, 2, 3)) for k in range(len(EDITS))]) for out in outs]
        up = ((values_of[1] >= values_of[0]) & (values_of[2] >= values_of[1])).float()
        per = {n: up[k][fit[k]].mean().item() for k, n in enumerate(EDITS)}
        result.setdefault("monotone", []).append({"knob": knob, "values": values, "share": per})
        print(knob, values, "monotone", {n: round(v, 2) for n, v in per.items()}, flush=True)
        if save():
            return


if __name__ == "__main__":
    main()
