"""The plugins that ship with mmq: quantizers, evaluators, model families, datasets."""
