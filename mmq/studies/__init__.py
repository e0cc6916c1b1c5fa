"""Studies of planned allocations, all through `run_trial`."""
