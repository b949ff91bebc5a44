# ---- nothing to edit below
TRIES=5
trap 'kill -USR1 "$step"' USR1 TERM  # from Slurm to the step: stop in good order
"${MPI[@]}" "${AMST[@]}" %%{step} &
step=$!
wait "$step"; code=$?
# a signal ends `wait`, not the step
while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done

job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}  # this task alone
job=${job:-$SLURM_JOB_ID}
case $code in
  0) exit 0 ;;
  3) echo "finished, but some slices fell back: see slices.csv"; exit 0 ;;
  75) echo "stopped in good order" ;;
  1 | 9 | 12[89] | 1[3-9][0-9])  # died: try again
    ((${SLURM_RESTART_COUNT:-0} < TRIES)) || exit "$code" ;;
  *) exit "$code" ;;  # bad input, or --strict
esac
if [[ $(squeue --noheader --format=%T --job="$job") == RUNNING ]]; then  # not cancelled
  echo "exit code $code: back into the queue"
  scontrol requeue "$job"
fi
exit "$code"
