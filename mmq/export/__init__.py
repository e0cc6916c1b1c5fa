"""Export a quantized model to an engine's format: plan, write, verify."""
