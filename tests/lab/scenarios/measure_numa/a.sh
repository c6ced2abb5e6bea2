# The source.
GUEST_MIB=96 FILL_MIB=160
. /host/guest/move.sh
guest_on_nodes host-nodes=0,policy=bind host-nodes=1,policy=bind
lab_wait receiving 300
for turn in 1 2; do
  for workers in 1 2 4; do
    guest_start
    lab_wait "ready$turn.$workers" 300
    VERIFY='' guest_move "report$turn.$workers" --transport tcp --workers $workers > /tmp/moved || { cat /tmp/moved; exit 1; }
    echo "turn $turn, $workers workers: $(grep '^round 1:' /tmp/moved)"
    wait $guest
    rm -f /dev/shm/guest*
    lab_signal "moved$turn.$workers"
  done
done
