"""The programmatic edits, and for each the statistic that says whether a picture was edited that way.

Pictures are tensors [B, 3, H, W] in 0..1. Everything runs where the tensor lies, in batches.
"""

import math

import torch
import torch.nn.functional as F

SIZE = 128


def luma(x):
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _tint(x, red, green, blue):
    return x * x.new_tensor([red, green, blue]).view(1, 3, 1, 1)


def _gaussian(x, sigma):
    radius = math.ceil(3 * sigma)
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    row = torch.exp(-(at**2) / (2 * sigma**2))
    row = (row / row.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (radius, radius, radius, radius), mode="reflect")
    x = F.conv2d(x, row.unsqueeze(2), groups=x.shape[1])
    return F.conv2d(x, row.unsqueeze(3), groups=x.shape[1])


def _radius(x):
    """Distance from the centre, 1 at the middle of the sides, [1, 1, H, W]."""
    height, width = x.shape[-2:]
    down = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype).view(1, 1, -1, 1)
    across = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).view(1, 1, 1, -1)
    return (down**2 + across**2).sqrt()


def _down(x):
    """0 at the top, 1 at the bottom, [1, 1, H, 1]."""
    return torch.linspace(0, 1, x.shape[-2], device=x.device, dtype=x.dtype).view(1, 1, -1, 1)


def _smooth(x, low, high):
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def black_and_white(x, _):
    return luma(x).expand_as(x)


def sepia(x, _):
    return _tint(luma(x) * 0.94 + 0.03, 1.16, 0.98, 0.74)


def invert(x, _):
    return 1 - x


def night(x, _):
    grey = luma(x)
    return _tint((0.45 * x + 0.55 * grey) ** 1.25, 0.26, 0.34, 0.58) + x.new_tensor([0.0, 0.01, 0.045]).view(1, 3, 1, 1)


def sunset(x, _):
    glow = x.new_tensor([1.0, 0.42, 0.08]).view(1, 3, 1, 1) * 0.55 * (1 - _smooth(_down(x), 0.0, 0.9))
    warm = _tint(x, 1.05, 0.72, 0.5)
    return 1 - (1 - warm.clamp(0, 1)) * (1 - glow)


def warmer(x, _):
    return _tint(x, 1.14, 1.0, 0.72)


def colder(x, _):
    return _tint(x, 0.74, 0.96, 1.16) + x.new_tensor([0.0, 0.0, 0.03]).view(1, 3, 1, 1)


def _specks(x, draw, share):
    """Where single random pixels are set, [B, 1, H, W] of 0 and 1."""
    return (torch.rand(x.shape[0], 1, *x.shape[-2:], device=x.device, generator=draw) < share).to(x.dtype)


def snow(x, draw):
    grey = luma(x)
    pale = 0.35 * x + 0.65 * grey
    # Snow lies below rather than above, and more on what is light already.
    lying = 0.25 + 0.5 * _smooth(_down(x), 0.35, 0.95) * (0.4 + 0.6 * _smooth(grey, 0.1, 0.6))
    white = pale * (1 - lying) + x.new_tensor([0.93, 0.96, 1.0]).view(1, 3, 1, 1) * lying
    small = F.max_pool2d(_specks(x, draw, 0.006), 2, 1, 1)[..., : x.shape[-2], : x.shape[-1]]
    large = F.max_pool2d(_specks(x, draw, 0.0015), 4, 1, 2)[..., : x.shape[-2], : x.shape[-1]]
    flakes = _gaussian(torch.maximum(small * 0.9, large), 0.6)
    return white + (1 - white) * flakes


def fog(x, _):
    thick = 0.72 - 0.25 * _smooth(_down(x), 0.3, 1.0)
    veil = x.new_tensor([0.80, 0.82, 0.84]).view(1, 3, 1, 1)
    return _gaussian(x, 0.8) * (1 - thick) + veil * thick


def rain(x, draw):
    grey = luma(x)
    dull = _tint(0.45 * x + 0.55 * grey, 0.66, 0.72, 0.80)
    # Drops are drawn upright and then sheared, so that the wind comes from the left.
    length = 17
    drops = _specks(x, draw, 0.0055)
    weights = torch.linspace(0.2, 1, length, device=x.device, dtype=x.dtype).view(1, 1, length, 1)
    streaks = F.conv2d(F.pad(drops, (0, 0, length - 1, 0)), weights).clamp(0, 1)
    matrix = x.new_tensor([[1, 0.28, 0], [0, 1, 0]]).expand(x.shape[0], 2, 3)
    grid = F.affine_grid(matrix, list(streaks.shape), align_corners=False)
    streaks = F.grid_sample(streaks, grid, padding_mode="reflection", align_corners=False)
    return dull + (x.new_tensor([0.86, 0.9, 0.95]).view(1, 3, 1, 1) - dull) * 0.55 * streaks


def sketch(x, _):
    grey = luma(x)
    drawn = grey / (_gaussian(grey, 3.0) + 0.04)
    return ((drawn - 0.4) / 0.55).clamp(0, 1).expand_as(x)


def oil(x, _):
    """Kuwahara's filter: each pixel takes the mean of the calmest of the four squares that it is a corner of."""
    side = 5
    padded = F.pad(x, (side - 1,) * 4, mode="reflect")
    mean = F.avg_pool2d(padded, side, 1)
    square = F.avg_pool2d(padded**2, side, 1)
    noise = (square - mean**2).sum(1, keepdim=True)
    height, width = x.shape[-2:]
    corners = [(0, 0), (0, side - 1), (side - 1, 0), (side - 1, side - 1)]
    means = torch.stack([mean[..., i : i + height, j : j + width] for i, j in corners])
    noises = torch.stack([noise[..., i : i + height, j : j + width] for i, j in corners])
    best = noises.argmin(0, keepdim=True).expand(1, *x.shape)
    painted = means.gather(0, best)[0]
    grey = luma(painted)
    return grey + (painted - grey) * 1.35


LEVELS = 4


def posterise(x, _):
    return (_gaussian(x, 0.7) * (LEVELS - 1)).round() / (LEVELS - 1)


BLOCK = 8


def pixel(x, _):
    return F.interpolate(F.avg_pool2d(x, BLOCK), scale_factor=BLOCK, mode="nearest")


def blur_edges(x, _):
    weight = _smooth(_radius(x), 0.45, 0.85)
    return x * (1 - weight) + _gaussian(x, 3.5) * weight


def _contrast(x, factor):
    pivot = luma(x).mean((2, 3), keepdim=True)
    return pivot + (x - pivot) * factor


def more_contrast(x, _):
    return _contrast(x, 1.7)


def less_contrast(x, _):
    return _contrast(x, 0.45)


def brighter(x, _):
    return 1 - (1 - x) ** 1.9


def darker(x, _):
    return x**1.15 * 0.5


def vignette(x, _):
    return x * (1 - 0.93 * _smooth(_radius(x), 0.55, 1.25))


def mirror(x, _):
    return x.flip(3)


def green_to_red(x, _):
    red, green, blue = x.unbind(1)
    top, low = x.amax(1), x.amin(1)
    spread = top - low
    # Yellow-green counts, yellow does not: red at most nine tenths of green.
    amount = _smooth(green - 0.94 * red, 0.0, 0.06) * _smooth(green - blue, 0.0, 0.05) * _smooth(spread / (top + 1e-3), 0.08, 0.2)
    swapped = torch.stack([green * 1.1, red * 0.55, blue * 0.6], 1)
    return x + (swapped - x) * amount.unsqueeze(1)


def nothing(x, _):
    return x


def apply(name, pictures, draw=None):
    """The edit `name` of `pictures`; `draw` is the generator of flakes and drops."""
    return globals()[name](pictures, draw).clamp(0, 1)


def fitting(name, pictures):
    """Which pictures [B] the edit says something about: "green things" wants some green."""
    if name == "green_to_red":
        return (apply(name, pictures) - pictures).abs().mean((1, 2, 3)) > 0.015
    return torch.ones(pictures.shape[0], dtype=torch.bool, device=pictures.device)


# The statistics. Each is a number for every picture [B] that grows as the edit shows more, and a margin: an edit counts
# as done when the number of the result exceeds the number of the original by the margin.


def _chroma(x):
    return (x - luma(x)).abs().mean((1, 2, 3))


def _mean(x):
    return x.mean((1, 2, 3))


def _gradient(x):
    """The size of the luminance's slope, [B, H - 1, W - 1]."""
    grey = luma(x)[:, 0]
    across = grey[:, :-1, 1:] - grey[:, :-1, :-1]
    down = grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return (across**2 + down**2 + 1e-8).sqrt()


def _ratio(after, before):
    """How far `after` has fallen below `before`, as a share of it."""
    return 1 - after / (before + 1e-3)


def _correlation(x, y):
    x, y = luma(x).flatten(1), luma(y).flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1) + 1e-6)


def _red_over_blue(x):
    return (x[:, 0] - x[:, 2]).mean((1, 2))


def _off_levels(x):
    scaled = x * (LEVELS - 1)
    return _mean((scaled - scaled.round()).abs())


def _within_blocks(x):
    return _mean((x - pixel(x, None)).abs())


def _ring(x, values):
    """The mean of `values` [B, H, W] outside the sharp middle."""
    height, width = values.shape[-2:]
    outside = (_radius(x)[0, 0, :height, :width] > 0.9).to(x.dtype)
    return (values * outside).sum((1, 2)) / outside.sum()


def _corners(x):
    """The corners' luminance as a share of the middle's."""
    far = (_radius(x) > 1.15).to(x.dtype)
    near = (_radius(x) < 0.6).to(x.dtype)
    grey = luma(x)
    return (grey * far).sum((1, 2, 3)) / far.sum() / ((grey * near).sum((1, 2, 3)) / near.sum() + 0.02)


def _greenness(x):
    return (x[:, 1] - x[:, 0]).clamp(min=0).mean((1, 2))


def _streaks(x):
    """How much more luminance changes across the drops than along them."""
    grey = luma(x)[:, 0]
    across = (grey[:, :-1, 1:] - grey[:, :-1, :-1]).abs().mean((1, 2))
    down = (grey[:, 1:, :-1] - grey[:, :-1, :-1]).abs().mean((1, 2))
    return across / (down + 1e-3)


def strength(name, before, after):
    """(how far `after` went from `before` in the direction of the edit, the margin it must reach), [B] and a number."""
    std = lambda x: luma(x).std((2, 3))[:, 0]  # noqa: E731
    white = lambda x: x.amin(1).mean((1, 2))  # noqa: E731
    paper = lambda x: _mean((luma(x) > 0.85).to(x))  # noqa: E731
    return {
        "black_and_white": lambda: (_ratio(_chroma(after), _chroma(before)), 0.6),
        "sepia": lambda: (_ratio(_mean((after - sepia(after, None)).abs()), _mean((before - sepia(before, None)).abs())), 0.4),
        "invert": lambda: (-_correlation(after, before), 0.5),
        "night": lambda: (_ratio(_mean(luma(after)), _mean(luma(before))), 0.35),
        "sunset": lambda: (_red_over_blue(after) - _red_over_blue(before), 0.1),
        "warmer": lambda: (_red_over_blue(after) - _red_over_blue(before), 0.04),
        "colder": lambda: (_red_over_blue(before) - _red_over_blue(after), 0.04),
        "snow": lambda: (white(after) - white(before), 0.08),
        "fog": lambda: (_ratio(std(after), std(before)), 0.3),
        "rain": lambda: (_streaks(after) - _streaks(before), 0.1),
        "sketch": lambda: (torch.minimum(_ratio(_chroma(after), _chroma(before)), 4 * (paper(after) - paper(before))), 0.5),
        "oil": lambda: (_ratio(_gradient(after).mean((1, 2)), _gradient(before).mean((1, 2))), 0.15),
        "posterise": lambda: (_ratio(_off_levels(after), _off_levels(before)), 0.25),
        "pixel": lambda: (_ratio(_within_blocks(after), _within_blocks(before)), 0.5),
        "blur_edges": lambda: (_ratio(_ring(after, _gradient(after)), _ring(before, _gradient(before))), 0.35),
        "more_contrast": lambda: (-_ratio(std(after), std(before)), 0.15),
        "less_contrast": lambda: (_ratio(std(after), std(before)), 0.25),
        "brighter": lambda: (_mean(luma(after)) - _mean(luma(before)), 0.06),
        "darker": lambda: (_ratio(_mean(luma(after)), _mean(luma(before))), 0.25),
        "vignette": lambda: (_ratio(_corners(after), _corners(before)), 0.3),
        "mirror": lambda: (_correlation(after, before.flip(3)) - _correlation(after, before), 0.1),
        "green_to_red": lambda: (_ratio(_greenness(after), _greenness(before)), 0.35),
        "nothing": lambda: (ssim(after, before), 0.7),
    }[name]()


def ssim(x, y):
    """Structural similarity of luminance and colours [B]: Gaussian window of 1.5 pixels, as Wang et al. 2004."""
    mean_x, mean_y = _gaussian(x, 1.5), _gaussian(y, 1.5)
    var_x = _gaussian(x * x, 1.5) - mean_x**2
    var_y = _gaussian(y * y, 1.5) - mean_y**2
    both = _gaussian(x * y, 1.5) - mean_x * mean_y
    near, alike = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + near) * (2 * both + alike)
    return (top / ((mean_x**2 + mean_y**2 + near) * (var_x + var_y + alike))).mean((1, 2, 3))
