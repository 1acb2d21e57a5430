"""Pictures on the device: random crops of the photographs in batches, and the programmatic edits of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import edits
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

# What a crop is taken from, so that it is scaled by no more than a third.
SIDES = (384, 288, 216, 162, 132)
CHANCES = (1.0, 1.0, 1.2, 1.5, 1.5)

# How often an edit comes up, where not once: the hard ones more, and "nothing", which holds the mean of all edits near the picture.
WEIGHTS = {"mirror": 4.0, "nothing": 2.0, "sketch": 1.3, "oil": 1.3, "posterise": 1.3, "pixel": 1.3, "snow": 1.3, "rain": 1.3}


def square(path, side):
    """The middle of a picture as the demo page crops it, [3, side, side] in 0..1."""
    picture = Image.open(path).convert("RGB")
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    picture = picture.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _squares(path):
    """Squares of a photograph's whole shorter side, from one end to the other."""
    picture = Image.open(path).convert("RGB")
    edge = min(picture.size)
    spare = max(picture.size) - edge
    for start in sorted({0, spare // 2, spare}) if spare > edge // 8 else [spare // 2]:
        box = (start, 0, start + edge, edge) if picture.width > picture.height else (0, start, edge, start + edge)
        yield picture.crop(box)


class Crops:
    """Draws batches of crops; `device` holds all photographs in all of `SIDES`. Mirroring comes up `mirror` times."""

    def __init__(self, folder, device, seed, mirror=WEIGHTS["mirror"]):
        self.weights = WEIGHTS | {"mirror": mirror}
        with ThreadPoolExecutor() as threads:
            paths = sorted(Path(folder).glob("*.jpg"))
            squares = [crop for crops in threads.map(lambda path: list(_squares(path)), paths) for crop in crops]
            self.levels = []
            for side in SIDES:
                scaled = threads.map(lambda crop: np.array(crop.resize((side, side), Image.Resampling.LANCZOS)), squares)
                stack = torch.from_numpy(np.stack(list(scaled)))
                self.levels.append(stack.permute(0, 3, 1, 2).contiguous().to(device))
        self.device = device
        self.draw = torch.Generator(device).manual_seed(seed)
        self.count = len(squares)

    def _uniform(self, count, low, high):
        return torch.rand(count, device=self.device, generator=self.draw) * (high - low) + low

    def _level(self, side, stack, count):
        size = edits.SIZE
        index = torch.randint(self.count, (count,), device=self.device, generator=self.draw)
        largest = min(side / size, 1.35)
        scale = self._uniform(count, 1.0, largest)
        stretch = torch.stack([scale * self._uniform(count, 0.92, 1.0), scale], 1).clamp(min=0.95) * size / side
        stretch = torch.where(self._uniform(count, 0, 1).view(-1, 1) < 0.5, stretch, stretch.flip(1))
        room = (1 - stretch).clamp(min=0)
        shift = torch.stack([self._uniform(count, -1, 1), self._uniform(count, -1, 1)], 1) * room
        flip = torch.where(self._uniform(count, 0, 1) < 0.5, -1.0, 1.0)
        matrix = torch.zeros(count, 2, 3, device=self.device)
        matrix[:, 0, 0] = stretch[:, 0] * flip
        matrix[:, 1, 1] = stretch[:, 1]
        matrix[:, :, 2] = shift
        grid = F.affine_grid(matrix, [count, 3, size, size], align_corners=False)
        pictures = stack[index].float() / 255
        return F.grid_sample(pictures, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)

    def _colours(self, x):
        """Other exposures, saturations and hues for about half of the pictures."""
        count = x.shape[0]
        one = lambda low, high, share: torch.where(  # noqa: E731
            self._uniform(count, 0, 1) < share, self._uniform(count, low, high), torch.zeros((), device=self.device)
        ).view(-1, 1, 1, 1)
        x = x.clamp(min=1e-4) ** one(-0.5, 0.5, 0.5).exp()
        x = (x - 0.5) * (1 + one(-0.4, 0.25, 0.4)) + 0.5
        grey = edits.luma(x)
        x = grey + (x - grey) * (1 + one(-0.6, 0.6, 0.5))
        balance = torch.cat([one(-0.15, 0.15, 0.4) for _ in range(3)], 1)
        x = x * (1 + balance)
        order = torch.stack([torch.randperm(3, device=self.device, generator=self.draw) for _ in range(8)])
        order = order[torch.randint(8, (count,), device=self.device, generator=self.draw)]
        mixed = x.gather(1, order.view(-1, 3, 1, 1).expand_as(x))
        x = torch.where(self._uniform(count, 0, 1).view(-1, 1, 1, 1) < 0.2, mixed, x)
        return x.clamp(0, 1)

    def batch(self, count):
        """[count, 3, 128, 128] in 0..1, in no order."""
        total = sum(CHANCES)
        counts = [round(count * chance / total) for chance in CHANCES]
        counts[-1] += count - sum(counts)
        parts = [self._level(side, stack, n) for side, stack, n in zip(SIDES, self.levels, counts)]
        order = torch.randperm(count, device=self.device, generator=self.draw)
        return self._colours(torch.cat(parts)[order])

    def pairs(self, count):
        """(pictures, edited, index of each one's edit in `edits`), edits in proportion to `weights`."""
        from wordings import EDITS

        pictures = self.batch(count)
        weights = [self.weights.get(name, 1.0) for name in EDITS]
        bounds = [round(count * part / sum(weights)) for part in np.cumsum(weights)]
        edited, kinds, start = [], [], 0
        for kind, (name, end) in enumerate(zip(EDITS, bounds)):
            edited.append(edits.apply(name, pictures[start:end], self.draw))
            kinds.append(torch.full((end - start,), kind, device=self.device))
            start = end
        return pictures, torch.cat(edited), torch.cat(kinds)
