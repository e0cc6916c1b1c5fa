"""Where samples come from: sources, pictures, seeded subsets, calibration pairs."""
