"""Files, folders, processes, signals and memory."""
