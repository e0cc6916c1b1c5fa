"""The sections of a command's help, by what an option is about."""

SECTIONS = {
    "Model": (
        *("model", "config", "path", "run", "first", "second", "dtype", "allow_pickle"),
        *("allow_unread_weights", "parts", "template", "system_prompt", "min_pixels"),
        *("max_pixels", "endpoint", "endpoint_model"),
    ),
    "Data": (
        *("task", "data", "dataset", "fields", "limit", "calibration_data"),
        *("calibration_samples", "file", "bits_columns", "score", "scores", "bpw", "sizes"),
        *("tag", "filter", "root", "skip_bad_rows", "picture", "prompt"),
    ),
    "Quantizer": ("quantizer", "quantizers", "bits"),
    "Search": (
        *("granularity", "n_trials", "target", "cost", "combine", "objective", "size_axis"),
        *("prune", "seed"),
    ),
    "Budget": (
        *("max_bpw", "max_size_gib", "max_latency_ms", "min_score", "max_drop", "max_flips"),
        *("timeout",),
    ),
    "Execution": (
        *("device", "device_map", "max_memory", "workers", "launcher", "gpus_per_worker"),
        *("dry_run", "threads", "jobs", "concurrency", "retries"),
    ),
    "Results": (
        *("study", "experiment", "figure", "report", "out", "output", "register", "rows"),
        *("as_json", "verbose", "quiet", "help", "_help"),
    ),
}
OTHER = "Options"
TITLES = (*SECTIONS, OTHER)
_BY_OPTION = {name: title for title, names in SECTIONS.items() for name in names}


def section_of(option: str) -> str:
    """The title of the section that an option, by its name in Python, is listed in."""
    return _BY_OPTION.get(option, OTHER)
