"""Which test modules are slow, and which depend on transformers: the markers of their tests.

Paths are relative to this folder; a folder stands for all modules in it.
"""

# load a model, start processes or servers, or compute for seconds: `make test-fast` skips them
SLOW = (
    "mmq/artifacts/test_artifacts.py",
    "mmq/artifacts/test_snapshot.py",
    "mmq/data/test_calibration_split.py",
    "mmq/evaluation/test_saved_outputs.py",
    "mmq/evaluation/test_waist.py",
    "mmq/export",
    "mmq/models/test_chat_endpoint.py",
    "mmq/models/test_checkpoint.py",
    "mmq/models/test_checkpoint_weights.py",
    "mmq/models/test_size.py",
    "mmq/models/test_stages.py",
    "mmq/quantization/test_blocks.py",
    "mmq/quantization/test_sequential.py",
    "mmq/studies/test_sensitivity.py",
    "mmq/system/test_disk.py",
    "mmq/system/test_home.py",
    "mmq/system/test_process.py",
    "mmq/system/test_secrets.py",
    "mmq/system/test_signals.py",
    "mmq/test_analyze.py",
    "mmq/test_browser.py",
    "mmq/test_cli.py",
    "mmq/test_designs.py",
    "mmq/test_evaluate_command.py",
    "mmq/test_export_command.py",
    "mmq/test_import_results.py",
    "mmq/test_importance.py",
    "mmq/test_quantize_process.py",
    "mmq/test_store_command.py",
    "mmq/test_studies.py",
    "mmq/test_study_names.py",
    "mmq/test_trial.py",
    "mmq/tracking/test_contact.py",
    "mmq/tracking/test_database.py",
    "mmq/tracking/test_launched.py",
    "mmq/tracking/test_moved.py",
    "plugins/test_captioning.py",
    "plugins/test_compressed_tensors.py",
    "plugins/test_embedded.py",
    "plugins/test_gguf.py",
    "plugins/test_gguf_families.py",
    "plugins/test_gguf_rewrite.py",
    "plugins/test_meteor.py",
    "plugins/test_models.py",
    "plugins/test_odd_layers.py",
    "plugins/test_openvino.py",
    "plugins/test_quantizers_on_models.py",
    "plugins/test_retrieval.py",
    "plugins/test_scaling.py",
    "plugins/test_targets.py",
    "plugins/test_training.py",
    "plugins/test_vqa.py",
    "search/test_front_sampler.py",
    "search/test_front_sampler_together.py",
    "search/test_local.py",
    "search/test_retries.py",
    "search/test_sampler_setup.py",
    "search/test_shared_runs.py",
    "search/test_stale_trials.py",
    "search/test_storage.py",
    "search/test_stuck_runs.py",
    "search/test_study.py",
    "search/test_tables.py",
    "test_benchmarks.py",
    "test_mlproject.py",
    "test_project.py",
    "test_readme.py",
)

# read models, processors or hidden states: `make test-4` repeats them with transformers 4.55
TRANSFORMERS = (
    "mmq/evaluation/test_generating.py",
    "mmq/evaluation/test_waist.py",
    "mmq/models",
    "mmq/quantization/test_blocks.py",
    "mmq/studies/test_sensitivity.py",
    "mmq/test_trial.py",
    "plugins/test_embedded.py",
    "plugins/test_generic.py",
    "plugins/test_generic_calibration.py",
    "plugins/test_legacy.py",
    "plugins/test_models.py",
    "plugins/test_quantizers_on_models.py",
    "plugins/test_retrieval.py",
    "plugins/test_scaling.py",
    "plugins/test_vqa.py",
)
MARKERS = {"slow": SLOW, "transformers": TRANSFORMERS}


def markers_of(path: str) -> list[str]:
    """The markers of a test module."""
    return [
        name
        for name, paths in MARKERS.items()
        if any(path == one or path.startswith(f"{one}/") for one in paths)
    ]
