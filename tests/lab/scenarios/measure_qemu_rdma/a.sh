# The source. Figures: $FILES/figures.a, TURN WHO BUSY-BEFORE BUSY-AFTER TOTAL-MS DOWNTIME-MS.
GUEST_MIB=288 FILL_MIB=256
. /host/guest/move.sh
measure=$LAB_SCENARIO/scenario/measure.py
# figures TURN WHO ARGUMENT...: of a move.
figures() {
  local turn=$1 who=$2
  shift 2
  python3 $measure "$who" "$@" > /tmp/moved || { cat /tmp/moved; echo "FAILED: $who did not move it"; exit 1; }
  echo "$turn $who $(tail -n 1 /tmp/moved)" >> $FILES/figures.a
}
lab_wait receiving 300
for turn in 1 2 3; do
  for who in qemu ramferry; do
    guest_start
    lab_wait "$who$turn" 300
    if [ $who = qemu ]; then
      # x-rdma-pin-all as QEMU has it by default (off): it registers 1 MiB at a time, as it goes.
      figures $turn qemu "rdma:$LAB_B:7777"
      kill $guest
    else
      figures $turn ramferry "$RESULTS/report$turn.json" ramferry migrate qemu:/run/guest.qmp $LAB_B:7711 "${IDENTITY[@]}" \
        --json "$RESULTS/report$turn.json" --downtime 2000 --max-rounds 6 --if-not-converging stop --transport rdma
    fi
    wait $guest
    rm -f $GUEST_MEMORY
    lab_signal "$who$turn.done"
  done
done
lab_wait figures 300
python3 $measure ratios $FILES/figures.a $FILES/figures.b
