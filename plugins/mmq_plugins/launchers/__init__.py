"""Where workers run: on this machine, on a Ray cluster, as a SLURM job."""
