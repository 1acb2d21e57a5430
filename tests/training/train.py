"""Trains the built-in model: first the autoencoder, then the UNet, with the text encoder that `train_text.py` made.

    python train.py vae  --photos DIR --out vae.safetensors --steps 5000
    python train.py unet --photos DIR --prompts prompts.npz --vae vae.safetensors --text text.safetensors --out DIR --steps 5000

With `--seconds` instead of `--steps`, as many steps as the machine makes in that time; the log says how many. Everything
that is drawn comes from `--seed`.
"""

import argparse
import json
import math
import time
from pathlib import Path

import networks
import numpy as np
import torch
import torch.nn.functional as F
from edits import ssim
from pictures import WEIGHTS, Crops
from safetensors.torch import load_file, save_file
from wordings import EDITS

# Stable Diffusion's noise.
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0).float()


def half(state):
    return {key: value.detach().half().contiguous().cpu() for key, value in state.items()}


class Clock:
    """Counts steps to a number of them or to the end of a time;"""

    def __init__(self, steps, seconds, seed_steps=60):
        self.total, self.seconds, self.warm = steps, seconds, seed_steps
        self.step, self.start = 0, time.time()

    def tick(self):
        self.step += 1
        # Compilation happens in the first steps, so speed is measured after them; then the number of steps is fixed.
        if self.total is None and self.step == self.warm // 2:
            torch.cuda.synchronize()
            self.mark = time.time()
        if self.total is None and self.step == self.warm:
            torch.cuda.synchronize()
            each = (time.time() - self.mark) / (self.warm - self.warm // 2)
            self.total = self.step + int((self.seconds - (time.time() - self.start)) * 0.97 / each)
            print(f"{each * 1000:.1f} ms a step, {self.total} steps", flush=True)

    def done(self):
        late = self.seconds is not None and time.time() - self.start > self.seconds
        return late or (self.total is not None and self.step >= self.total)

    def rate(self, peak, warmup):
        """The learning rate: up over `warmup` steps, then down along a cosine."""
        up = min(1.0, (self.step + 1) / warmup)
        return peak * up * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.share())))

    def share(self):
        return min(1.0, self.step / self.total) if self.total else 0.0


def slopes(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def train_vae(args, device):
    torch.manual_seed(args.seed)
    crops = Crops(args.photos / "train", device, args.seed, args.mirror)
    print(f"{crops.count} squares", flush=True)
    model = networks.vae().to(device, memory_format=torch.channels_last)
    if args.resume:
        model.load_state_dict({k: v.float() for k, v in load_file(args.resume).items()})
    run = torch.compile(model.encoder) if args.compile else model.encoder
    back = torch.compile(model.decoder) if args.compile else model.decoder
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=device == "cuda")
    clock = Clock(args.steps, args.seconds)
    batch, pool, index = args.batch, None, 0
    while not clock.done():
        if pool is None or index + batch > pool.shape[0]:
            plain, edited, _ = crops.pairs(8 * batch)
            # Two thirds photographs, one third what edits make of them.
            pool = torch.cat([plain, edited[:: 2]])
            pool = (pool[torch.randperm(pool.shape[0], device=device)] * 2 - 1).contiguous(memory_format=torch.channels_last)
            index = 0
        x = pool[index : index + batch]
        index += batch
        with torch.autocast(device, torch.bfloat16):
            mean, log = model.quant_conv(run(x)).float().chunk(2, 1)
            log = log.clamp(-12, 4)
            # A little more noise than the model's own: the UNet's latents are never exact.
            std = (0.5 * log).exp()
            z = mean + (std**2 + (0.04 * mean.detach().std()) ** 2).sqrt() * torch.randn_like(mean)
            y = back(model.post_quant_conv(z))
        y = y.float()
        error = (x - y).abs().mean()
        alike = ssim((x + 1) / 2, (y + 1) / 2).mean()
        edges = sum((a - b).abs().mean() for a, b in zip(slopes(x), slopes(y)))
        divergence = 0.5 * (mean**2 + log.exp() - 1 - log).mean()
        loss = error + 0.4 * (1 - alike) + 0.4 * edges + 1e-3 * divergence
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(args.rate, 200)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if clock.step % 200 == 0:
            print(f"vae {clock.step} L1 {error:.4f} SSIM {alike:.4f} edges {edges:.4f} KL {divergence:.3f} std {std.mean():.3f}", flush=True)
        clock.tick()
    model.eval()
    with torch.no_grad():
        latents = []
        for _ in range(8):
            plain, edited, _ = crops.pairs(256)
            latents += [model.encode(part * 2 - 1).latent_dist.mode() for part in (plain, edited)]
        latents = torch.cat(latents)
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        print("latents", mean.tolist(), std.tolist())
        networks.normalise(model, mean, std)
    save_file(half(model.state_dict()), args.out)
    print(f"vae: {clock.step} steps in {time.time() - clock.start:.0f} s", flush=True)


class Positions(torch.nn.Module):
    """Asks of features where in the picture they lie, so that mirroring finds them knowing it; not part of the model."""

    def __init__(self, channels, side):
        super().__init__()
        at = (torch.arange(side) + 0.5) / side
        waves = torch.stack([at * 2 - 1] + [f(math.pi * k * at) for k in (1, 2, 4, 8) for f in (torch.sin, torch.cos)])
        row = waves.view(9, 1, side).expand(9, side, side)
        self.register_buffer("want", torch.cat([row, row.transpose(1, 2)]))
        self.ask = torch.nn.Conv2d(channels, 18, 1)
        self.loss = None

    def forward(self, _module, _inputs, output):
        self.loss = F.mse_loss(self.ask(output).float(), self.want.float().expand(output.shape[0], -1, -1, -1))


def embed(tokens, path, device):
    """What the frozen text encoder makes of token ids [..., 77]."""
    text = networks.text_encoder()
    networks.load_text_state(text, {k: v.float() for k, v in load_file(path).items()})
    text = text.to(device).eval()
    with torch.no_grad():
        rows = [text(part.to(device)).last_hidden_state.half() for part in tokens.reshape(-1, 77).split(2048)]
    return torch.cat(rows).view(*tokens.shape, -1)


def train_unet(args, device):
    torch.manual_seed(args.seed + 1)
    gpu = device == "cuda"
    dtype = torch.bfloat16 if gpu else torch.float32
    crops = Crops(args.photos / "train", device, args.seed + 1, args.mirror)
    prompts = {key: torch.from_numpy(value).long() for key, value in np.load(args.prompts).items()}
    # Nonsense asks for nothing.
    quiet = EDITS.index("nothing")
    few = prompts["train"].shape[1] // 5
    prompts["train"][quiet, :few] = prompts["nonsense"][:few]
    said = embed(prompts["train"], args.text, device).to(dtype)
    empty = embed(prompts["empty"], args.text, device).to(dtype)
    vae = networks.vae()
    vae.load_state_dict({k: v.float() for k, v in load_file(args.vae).items()})
    vae = vae.to(device, dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
    unet = networks.unet()
    if args.resume:
        unet.load_state_dict({k: v.float() for k, v in load_file(args.resume).items()})
    places = torch.nn.ModuleList([Positions(160, 8), Positions(96, 16), Positions(96, 32)])
    for module, place in zip([unet.mid_block, unet.up_blocks[1].resnets[0], unet.up_blocks[1]], places):
        module.register_forward_hook(place)
    # The network computes in `dtype`; what the optimizer steps is kept in float32 beside it.
    both = torch.nn.ModuleList([unet, places])
    master = [p.detach().clone().float().to(device) for p in both.parameters()]
    both.to(device, dtype)
    unet.to(memory_format=torch.channels_last)
    weights = list(both.parameters())
    ema = [p.clone() for p in master]
    for p in master:
        p.grad = torch.zeros_like(p)
    rate = torch.zeros((), device=device)
    optimizer = torch.optim.AdamW(master, lr=rate if gpu else 1e-3, betas=(0.9, 0.99), weight_decay=0.02, fused=gpu, capturable=gpu)
    if gpu:
        optimizer.param_groups[0]["lr"] = rate
    alphas = ALPHAS.to(device)
    batch, fresh = args.batch, args.fresh

    @torch.no_grad()
    def pairs():
        plain, edited, kinds = crops.pairs(fresh)
        x = torch.cat([plain, edited]).to(dtype, memory_format=torch.channels_last) * 2 - 1
        moments = vae.quant_conv(vae.encoder(x))[:, :4].float()
        return *moments.chunk(2), kinds

    parts = [pairs() for _ in range(args.pool)]
    before, after, kinds = (torch.cat(list(column)) for column in zip(*parts))
    print("latents", after.std((0, 2, 3)).tolist(), after.mean((0, 2, 3)).tolist(), flush=True)

    # What a step reads and writes lies in place, so that a CUDA graph of it can be replayed.
    noisy = torch.zeros(batch, 8, 32, 32, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    want = torch.zeros(batch, 4, 32, 32, device=device)
    words = torch.zeros(batch, 77, networks.TEXT, device=device, dtype=dtype)
    times = torch.zeros(batch, device=device, dtype=torch.long)
    decay, ask = torch.zeros((), device=device), torch.zeros((), device=device)
    losses = torch.zeros(2, device=device)

    def step():
        for p in weights:
            p.grad = None
        guess = unet(noisy, times, words, return_dict=False)[0]
        loss = F.mse_loss(guess.float(), want)
        where = sum(place.loss for place in places)
        (loss + ask * where).backward()
        with torch.no_grad():
            for p, w in zip(master, weights):
                p.grad.copy_(w.grad)
            torch.nn.utils.clip_grad_norm_(master, 1.0)
            optimizer.step()
            torch._foreach_copy_(weights, master)
            # ema += decay * (master - ema)
            way = torch._foreach_sub(master, ema)
            torch._foreach_mul_(way, decay)
            torch._foreach_add_(ema, way)
            losses.copy_(torch.stack([loss.detach(), where.detach()]))
        for place in places:
            place.loss = None

    def draw():
        index = torch.randint(before.shape[0], (batch,), device=device)
        z, kind = after[index], kinds[index]
        text = said[kind, torch.randint(said.shape[1], (batch,), device=device)]
        chance = torch.rand(batch, device=device).view(-1, 1, 1)
        # 5 % without text, 5 % without picture, 5 % without either.
        no_text = (chance < 0.05) | ((chance >= 0.10) & (chance < 0.15))
        no_picture = (chance >= 0.05) & (chance < 0.15)
        words.copy_(torch.where(no_text, empty, text))
        # A twelfth starts from pure noise, which is where sampling begins and where most is decided.
        t = torch.randint(1000, (batch,), device=device)
        t = torch.where(torch.rand(batch, device=device) < 1 / 12, 999, t)
        signal, level = alphas[t].sqrt().view(-1, 1, 1, 1), (1 - alphas[t]).sqrt().view(-1, 1, 1, 1)
        noise = torch.randn_like(z)
        noisy[:, :4] = signal * z + level * noise
        noisy[:, 4:] = before[index] * ~no_picture.unsqueeze(3)
        want.copy_(signal * noise - level * z)
        times.copy_(t)

    if args.deadline:
        args.seconds = args.deadline - time.time()
    clock = Clock(args.steps, args.seconds, 30)
    run, report, slot = step, [], 0
    while not clock.done():
        if clock.step % args.refresh == 0 and clock.step:
            for column, part in zip((before, after, kinds), pairs()):
                column[slot * fresh : (slot + 1) * fresh] = part
            slot = (slot + 1) % args.pool
        draw()
        rate.fill_(clock.rate(args.rate, 300))
        if not gpu:
            optimizer.param_groups[0]["lr"] = rate.item()
        ask.fill_(0.15 * max(0.0, 1 - clock.share() / 0.7))
        decay.fill_(1 - min(0.998, (clock.step + 1) / (clock.step + 30)))
        if args.graph and clock.step == 5:
            # The first steps ran as they are: they choose algorithms and make the optimizer's state.
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            for p in weights:
                p.grad = None
            with torch.cuda.graph(graph):
                step()
            run = graph.replay
        run()
        if clock.step % 20 == 0:
            report.append(losses.clone())
        if clock.step % 250 == 0:
            loss, where = torch.stack(report[-12:]).mean(0).tolist()
            print(f"unet {clock.step} loss {loss:.4f} where {where:.4f} {time.time() - clock.start:.0f} s", flush=True)
        clock.tick()
    print(f"unet: {clock.step} steps in {time.time() - clock.start:.0f} s", flush=True)
    names = [name for name, _ in unet.named_parameters()]
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(half(dict(zip(names, ema))), args.out / "unet.safetensors")
    curve = [[round(x, 5) for x in row.tolist()] for row in report]
    (args.out / "training.json").write_text(json.dumps({"steps": clock.step, "batch": batch, "loss": curve}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["vae", "unet"])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--resume", type=Path, help="weights to go on from")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--deadline", type=float, help="`--seconds` that end at this time of the clock")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--mirror", type=float, default=WEIGHTS["mirror"], help="times that mirroring comes up")
    parser.add_argument("--fresh", type=int, default=1024, help="pairs made at a time")
    parser.add_argument("--pool", type=int, default=16, help="how many times that are kept")
    parser.add_argument("--refresh", type=int, default=24, help="steps until new pairs are made")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--no-graph", dest="graph", action="store_false", help="no CUDA graph of a step of the UNet")
    args = parser.parse_args()
    args.graph &= torch.cuda.is_available()
    if sum(x is not None for x in (args.steps, args.seconds, args.deadline)) != 1:
        parser.error("one of --steps, --seconds and --deadline")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    (train_vae if args.stage == "vae" else train_unet)(args, device)


if __name__ == "__main__":
    main()
