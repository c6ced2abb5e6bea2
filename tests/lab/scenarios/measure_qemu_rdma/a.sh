# The source.
GUEST_MIB=192 FILL_MIB=160
. /host/guest/move.sh
lab_wait receiving 300
for turn in 1 2; do
  guest_start
  lab_wait "qemu$turn" 300
  # x-rdma-pin-all as QEMU has it by default (off): it registers 1 MiB at a time, as it goes.
  if python3 $LAB_SCENARIO/scenario/qemu_migrate.py "rdma:$LAB_B:7777"; then
    echo "QEMU moved it"
  else
    echo "QEMU did not move it"
  fi
  kill $guest
  wait $guest
  rm -f $GUEST_MEMORY
  lab_signal "qemu$turn.done"

  guest_start
  lab_wait "ramferry$turn" 300
  VERIFY='' guest_move "report$turn" --transport rdma > /tmp/moved || { cat /tmp/moved; exit 1; }
  grep -E '^(downtime|total)' /tmp/moved
  wait $guest
  rm -f $GUEST_MEMORY
  lab_signal "ramferry$turn.done"
done
