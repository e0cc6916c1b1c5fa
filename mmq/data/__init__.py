"""Sources of samples: data sets, pictures, seeded subsets, calibration pairs."""

VERSION = 1  # raise it with every change of samples, random draws or pixels
