# The source. Two guests of the same size: one is mostly pages of zeros, which a worker reads and does not send; one is
# mostly data. Each is copied again and again, and stays: no move gets further than its first round.
. /host/guest/move.sh
lab_wait receiving 300
for kind in scan send; do
  GUEST_MIB=112 FILL_MIB=$([ $kind = scan ] && echo 16 || echo 64)
  . "$LAB_SCENARIO/scenario/guest.sh"
  guest_start
  for turn in 1 2 3; do
    # Another order each turn: what drifts falls on all alike.
    for workers in $(python3 -c "print(*([1, 2, 4] * 2)[$turn - 1:$turn + 2])"); do
      name=$kind.$turn.$workers code=0
      ramferry migrate qemu:/run/guest.qmp "$LAB_B:7711" "${IDENTITY[@]}" --json "$RESULTS/$name.json" --transport tcp \
        --data-encryption off --workers $workers --downtime 1 --max-rounds 1 --if-not-converging give-up > /tmp/moved 2>&1 || code=$?
      [ $code = 4 ] || { cat /tmp/moved; echo "FAILED ($code): it was not given up after a round"; exit 1; }
    done
  done
  kill $guest
  wait $guest || true
  rm -f /dev/shm/guest*
done
lab_signal measured
python3 "$LAB_SCENARIO/scenario/ratios.py" "$RESULTS"
