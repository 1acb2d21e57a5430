"""Changes what two kinds of text mean to the trained UNet, by changing the text encoder alone.

    python redirect_text.py --prompts prompts.npz --text text.safetensors --out redirected.safetensors

No text becomes "do nothing". Guidance then leads away from the unchanged picture: more of the text's is a stronger edit, more
of the picture's is nearer to the original. (The UNet's own idea of no text is the mean of all edits, which is neither.) And the
wordings for posterising become those for an oil painting, which the UNet is good at; posterising it hardly learnt.
"""

import argparse
from pathlib import Path

import networks
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from wordings import EDITS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    prompts = {key: torch.from_numpy(value).long() for key, value in np.load(args.prompts).items()}
    train, test = prompts["train"], prompts["test"]
    state = {key: value.float() for key, value in load_file(args.text).items()}
    teacher = networks.load_text_state(networks.text_encoder(), state).eval().requires_grad_(False)
    model = networks.load_text_state(networks.text_encoder(), state)
    quiet, oil, poster = (EDITS.index(name) for name in ("nothing", "oil", "posterise"))
    centre = {kind: teacher(train[kind, :512]).last_hidden_state.mean(0) for kind in range(len(EDITS))}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(args.steps):
        kind = torch.randint(len(EDITS), (args.batch,))
        kind[torch.rand(args.batch) < 0.12] = poster
        tokens = train[kind, torch.randint(train.shape[1], (args.batch,))]
        odd = torch.rand(args.batch) < 0.04
        tokens[odd] = prompts["nonsense"][torch.randint(len(prompts["nonsense"]), (int(odd.sum()),))]
        with torch.no_grad():
            want = teacher(tokens).last_hidden_state
        want[(kind == poster) & ~odd] = centre[oil]
        empty = torch.rand(args.batch) < 0.06
        tokens[empty], want[empty] = prompts["empty"], centre[quiet]
        loss = F.mse_loss(model(tokens).last_hidden_state, want)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 20) * (1 - 0.99 * step / args.steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            with torch.no_grad():
                none = F.mse_loss(model(prompts["empty"][None]).last_hidden_state[0], centre[quiet])
                far = F.mse_loss(teacher(prompts["empty"][None]).last_hidden_state[0], centre[quiet])
                # Past the end of a sentence, whose mean is it nearest to?
                ends = model(test.flatten(0, 1)).last_hidden_state[:, 40]
                guess = torch.cdist(ends, torch.stack([centre[k][40] for k in range(len(EDITS))])).argmin(1)
                truth = torch.arange(len(EDITS)).repeat_interleave(test.shape[1])
                truth[truth == poster] = oil
                right = (guess == truth).float().mean()
            print(f"{step + 1} loss {loss:.4f} empty {none:.4f} (was {far:.4f}) held-out wordings {right:.3f}", flush=True)
    save_file({key: value.detach().half().contiguous() for key, value in networks.text_state(model).items()}, args.out)


if __name__ == "__main__":
    main()
