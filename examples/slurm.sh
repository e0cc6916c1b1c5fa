#!/bin/bash
# A search with eight workers as a SLURM array job, to submit by hand:
#
#     export MMQ_STORAGE=postgresql://USER:PASSWORD@HOST/DATABASE
#     export MLFLOW_TRACKING_URI=http://TRACKING:5000
#     sbatch examples/slurm.sh
#
# `mmq search --launcher slurm --workers 8 --dry-run` prints a script like this one for your own
# options; without --dry-run, the command submits it and follows the search.
#SBATCH --job-name=mmq-search
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=mmq-search-%A_%a.log

# Locks and SQLite need a local folder; quantized blocks are shared.
export MMQ_HOME="${SLURM_TMPDIR:-/tmp}/mmq-$USER"
export MMQ_STORE="${MMQ_STORE:-$HOME/mmq-blocks}"
export MMQ_WORKER_PLACE="$SLURMD_NODENAME (SLURM job ${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID)"
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK" TQDM_DISABLE=1

# SIGUSR1 arrives before the time limit: the worker re-queues its trial, and the task is queued
# again. SIGTERM announces preemption or scancel: the worker re-queues its trial.
requeue="" early="" worker=""
stop() { if [ -n "$worker" ]; then kill -TERM "$worker" 2>/dev/null; else early=yes; fi; }
trap 'requeue=yes; stop' USR1
trap stop TERM
mmq search --model Salesforce/blip2-opt-2.7b --task captioning --data /data/coco \
    --quantizer gptq --device cuda --n-trials 200 --study coco-gptq &
worker=$!
[ -z "$early" ] || stop  # a signal arrived before the worker's process id was known
wait "$worker"; code=$?
while kill -0 "$worker" 2>/dev/null; do
    wait "$worker"; code=$?
done
if [ -n "$requeue" ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    sleep 60
fi
exit "$code"
