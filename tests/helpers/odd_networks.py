"""Networks that convert, and do not export as they are."""

import torch
from torch import nn


class Pair(nn.Module):
    """Code that cannot be traced, and gives two tensors in a tuple."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x):
        x = self.conv(x)
        return (x, x.mean(2, keepdim=True)) if x.shape[2] > 0 else (x, x)


class TakesPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, pair):
        x, mean = pair
        return self.conv(x - mean) if x.shape[2] > 0 else x


class HandsOverPairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = Pair(), TakesPair()

    def forward(self, clips):
        return self.two(self.one(clips)).mean((2, 3, 4))


class NoOnnxOperation(nn.Module):
    """An element-wise operation that ONNX has not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, clips):
        return torch.special.bessel_j0(self.conv(clips)).mean((2, 3, 4))


class Whole(nn.Module):
    """Temporal convolutions in code that cannot be traced."""

    def __init__(self, convolutions):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv3d(3, 3, 3, padding=1) for _ in range(convolutions))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) if x.shape[2] > 1 else layer(x) + 1
        return x


def runs_whole(convolutions):
    """A network with so many temporal convolutions in one module that runs as a whole."""
    return nn.Sequential(Whole(convolutions), nn.AdaptiveAvgPool3d(1), nn.Flatten()).eval()
