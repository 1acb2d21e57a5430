"""Measures the built-in model through diffusers' own pipeline, on photographs and wordings that training never saw.

    python evaluate.py --model ../../www/models/built-in --photos ../fixtures/built_in/photos --out DIR

writes DIR/metrics.json and DIR/metrics.md, and puts its tables into the model card. About an hour on two cores, a minute with `--device cuda`.
"""

import argparse
import json
import time
from pathlib import Path

import edits
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image
from pictures import square
from wordings import ASKED

BATCH = 8
# The tables stand between these in the model card.
START, END = "<!-- measured -->", "<!-- end -->"
TEXT_VALUES = (1.1, 1.5, 2.5)
IMAGE_VALUES = (1.0, 1.4, 2.0)
# Edits of each photograph that the guidance is measured on; they take turns, so that all of them come up.
EACH = 3


def to_tensor(pictures):
    """Pictures [B, H, W, 3] in 0..1 as the edits want them, at the 256 levels that a PNG has."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).mul(255).round().div(255)


class Editor:
    """Edits in batches, and remembers every result."""

    def __init__(self, folder, photos, defaults, device):
        self.pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, torch_dtype=torch.float32).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.photos, self.defaults, self.known = photos, defaults, {}

    def edit(self, jobs, **changed):
        """Pictures of `jobs`, pairs of a photograph's index and a sentence; the seed is the index."""
        options = self.defaults | changed
        key = lambda job: (*job, *sorted(options.items()))  # noqa: E731
        new = [job for job in jobs if key(job) not in self.known]
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            out = self.pipeline(
                prompt=[sentence for _, sentence in part],
                image=[self.photos[i] for i, _ in part],
                generator=[torch.Generator("cpu").manual_seed(i) for i, _ in part],
                num_inference_steps=options["numInferenceSteps"],
                guidance_scale=options["guidanceScale"],
                image_guidance_scale=options["imageGuidanceScale"],
                output_type="np",
            ).images
            for job, picture in zip(part, to_tensor(out)):
                self.known[key(job)] = picture
        return torch.stack([self.known[key(job)] for job in jobs])

    @torch.no_grad()
    def autoencoder(self, pictures):
        """What the autoencoder alone makes of pictures."""
        vae = self.pipeline.vae
        parts = [vae.decode(vae.encode(x.to(vae.device) * 2 - 1).latent_dist.mode()).sample for x in pictures.split(BATCH)]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1).cpu()


def towards(before, after, target):
    """How far an edit went towards its target, as a share of the way [B]."""
    way = target - before
    return ((after - before) * way).sum((1, 2, 3)) / (way**2).sum((1, 2, 3)).clamp(min=1e-6)


def instructions(editor, originals):
    """A row for every instruction, and all results."""
    rows, results, draw = {}, {}, torch.Generator().manual_seed(3)
    for name, sentences in ASKED.items():
        start = time.time()
        jobs = [(i, sentences[i % len(sentences)]) for i in range(len(originals))]
        out = editor.edit(jobs)
        target = edits.apply(name, originals, draw)
        strength, margin = edits.strength(name, originals, out)
        fit = edits.fitting(name, originals)
        rows[name] = {
            "edits": int(fit.sum()),
            "share": (strength > margin)[fit].float().mean().item(),
            "margin": margin,
            "strength": strength[fit].mean().item(),
            "ssim": edits.ssim(out, target).mean().item(),
            "ssim_autoencoder": edits.ssim(editor.autoencoder(target), target).mean().item(),
            "ssim_unedited": edits.ssim(originals, target).mean().item(),
        }
        results[name] = out
        print(name, {k: round(v, 3) for k, v in rows[name].items()}, f"{time.time() - start:.0f} s", flush=True)
    return rows, results


def guidance(editor, originals):
    """For text and for picture, what three values of the guidance do to each photograph."""
    # Not every photograph has green things.
    names = [name for name in ASKED if name not in ("nothing", "green_to_red")]
    chosen = [[names[(i * EACH + k) % len(names)] for k in range(EACH)] for i in range(len(originals))]
    jobs = [(i, ASKED[name][i % len(ASKED[name])]) for i, each in enumerate(chosen) for name in each]
    before = originals[[i for i, _ in jobs]]
    draw = torch.Generator().manual_seed(3)
    target = torch.cat([edits.apply(name, originals[i : i + 1], draw) for i, each in enumerate(chosen) for name in each])
    tables = {}
    for knob, values in [("guidanceScale", TEXT_VALUES), ("imageGuidanceScale", IMAGE_VALUES)]:
        columns = []
        for value in values:
            out = editor.edit(jobs, **{knob: value})
            if knob == "guidanceScale":
                measured = towards(before, out, target)
            else:
                measured = (out - before).abs().mean((1, 2, 3))
            columns.append(measured.view(-1, EACH).mean(1))
            print(knob, value, columns[-1].mean().item(), flush=True)
        table = torch.stack(columns, 1)
        steps = table.diff(dim=1) * (1 if knob == "guidanceScale" else -1)
        tables[knob] = {"values": values, "photos": table.tolist(), "monotone": (steps > 0).all(1).float().mean().item()}
    return tables


def markdown(metrics, names):
    lines = ["| instruction | edits | done | margin | SSIM to the target | autoencoder alone | unedited |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, row in metrics["instructions"].items():
        label = "oil painting, posterise" if name == "oil" else name.replace("_", " ")
        cells = [label, row["edits"], f"{row['share']:.0%}", f"{row['margin']:.2f}"]
        cells += [f"{row[key]:.3f}" for key in ("ssim", "ssim_autoencoder", "ssim_unedited")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    mean = metrics["mean"]
    lines.append(f"| **mean** | | {mean['share']:.0%} | | **{mean['ssim']:.3f}** | {mean['ssim_autoencoder']:.3f} | {mean['ssim_unedited']:.3f} |")
    for knob, title in [("guidanceScale", "way towards the target"), ("imageGuidanceScale", "mean difference from the original")]:
        table = metrics["guidance"][knob]
        lines += ["", f"`{knob}` and the {title}; monotone on {table['monotone']:.0%} of the photographs:", ""]
        lines.append("| photograph | " + " | ".join(map(str, table["values"])) + " |")
        lines.append("| --- |" + " --- |" * len(table["values"]))
        lines += [f"| {name} | " + " | ".join(f"{x:.3f}" for x in row) + " |" for name, row in zip(names, table["photos"])]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "photos", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    # Full float32 on a GPU too.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    paths = sorted(path for path in args.photos.iterdir() if path.suffix in (".jpg", ".png"))
    originals = torch.stack([square(path, edits.SIZE) for path in paths])
    photos = [Image.fromarray((x.permute(1, 2, 0) * 255).round().byte().numpy()) for x in originals]
    defaults = json.loads((args.model / "defaults.json").read_text())
    defaults = {key: defaults[key] for key in ("guidanceScale", "imageGuidanceScale", "numInferenceSteps")}
    editor = Editor(args.model, photos, defaults, args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    rows, results = instructions(editor, originals)
    metrics = {
        "defaults": defaults,
        "instructions": rows,
        "mean": {key: sum(row[key] for row in rows.values()) / len(rows) for key in ("share", "ssim", "ssim_autoencoder", "ssim_unedited")},
    }
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    sheet = torch.cat([torch.cat(list(out), 2) for out in [originals, *results.values()]], 1)
    Image.fromarray((sheet.permute(1, 2, 0) * 255).round().byte().numpy()).save(args.out / "sheet.png")
    metrics["guidance"] = guidance(editor, originals)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    tables = markdown(metrics, [path.stem for path in paths])
    (args.out / "metrics.md").write_text(tables)
    card = args.model / "README.md"
    if card.exists():
        before, _, rest = card.read_text().partition(START)
        card.write_text(f"{before}{START}\n{tables}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
