"""Where samples come from: sources, pictures, seeded subsets, calibration pairs."""

VERSION = 1  # raise it with every change that gives other samples, draws or pixels
