# The destination.
. /host/guest/move.sh
# few_registrations COMMAND...: enough of the device's objects for a channel, not for the guest's memory.
few_registrations() {
  mkdir -p /tmp/cgroup
  mount -t cgroup2 none /tmp/cgroup
  echo +rdma > /tmp/cgroup/cgroup.subtree_control
  mkdir /tmp/cgroup/few
  echo "rxe0 hca_object=6" > /tmp/cgroup/few/rdma.max
  echo $BASHPID > /tmp/cgroup/few/cgroup.procs
  exec "$@"
}
nothing_is_left() { until [ ! -e $GUEST_MEMORY ]; do sleep 0.2; done; }

guest_receive
# The first move is cut off. Its reservation must go before the second can come.
until grep -q 'is not taken' /tmp/receive.log; do sleep 0.2; done
lab_check "nothing is left of the cut-off guest" nothing_is_left
lab_signal released

lab_wait kill 300
kill -9 $receiver
wait $receiver
guest_receive_again few_registrations
lab_check "the next receiver clears what the killed one left" nothing_is_left
lab_signal receiving-again
guest_has_come
