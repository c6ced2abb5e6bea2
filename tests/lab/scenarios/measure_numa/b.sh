# The destination.
GUEST_MIB=96 FILL_MIB=160
. /host/guest/move.sh
guest_on_nodes
guest_receive
for turn in 1 2; do
  for workers in 1 2 4; do
    lab_signal "ready$turn.$workers"
    lab_wait "moved$turn.$workers" 600
    pkill qemu-system
    while pgrep qemu-system > /dev/null; do sleep 0.2; done
    rm -f /dev/shm/guest*
  done
done
