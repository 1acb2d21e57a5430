"""Teaches the text encoder which edit a sentence asks for; minutes on a CPU. The UNet then learns from its frozen output.

    python train_text.py --prompts prompts.npz --out text.safetensors

A sentence of random words means "do nothing", so that what the model does not understand leaves the picture alone. The empty
sentence is a class of its own: guidance needs it to be none of the edits.
"""

import argparse
import math
from pathlib import Path

import networks
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from wordings import EDITS


def pooled(model, tokens):
    """The mean over the end of the text and what pads it, where a causal encoder knows the whole sentence."""
    hidden = model(tokens).last_hidden_state
    ended = (tokens == networks.END).unsqueeze(2).to(hidden)
    return (hidden * ended).sum(1) / ended.sum(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    prompts = {key: torch.from_numpy(value).long() for key, value in np.load(args.prompts).items()}
    train, test = prompts["train"], prompts["test"]
    edits = len(EDITS)
    model = networks.text_encoder()
    head = torch.nn.Linear(networks.TEXT, edits + 1)
    weights = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02)
    for step in range(args.steps):
        kind = torch.randint(edits + 1, (args.batch,))
        tokens = train[kind.clamp(max=edits - 1), torch.randint(train.shape[1], (args.batch,))]
        tokens[kind == edits] = prompts["empty"]
        odd = torch.rand(args.batch) < 0.04
        tokens[odd] = prompts["nonsense"][torch.randint(len(prompts["nonsense"]), (int(odd.sum()),))]
        kind[odd] = EDITS.index("nothing")
        loss = F.cross_entropy(head(pooled(model, tokens)), kind, label_smoothing=0.1)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 40) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if step % 50 == 49:
            with torch.no_grad():
                guess = head(pooled(model, test.flatten(0, 1))).argmax(1).view(test.shape[:2])
            right = (guess == torch.arange(edits).view(-1, 1)).float().mean()
            print(f"text {step + 1} loss {loss:.3f} held-out wordings {right:.3f}", flush=True)
    wrong = [(EDITS[i], int(j)) for i, j in (guess != torch.arange(edits).view(-1, 1)).nonzero().tolist()]
    print("not understood:", wrong)
    state = networks.text_state(model)
    save_file({key: value.detach().half().contiguous() for key, value in state.items()}, args.out)


if __name__ == "__main__":
    main()
