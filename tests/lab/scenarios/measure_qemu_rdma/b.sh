# The destination.
GUEST_MIB=192 FILL_MIB=160
. /host/guest/move.sh
guest_receive
for turn in 1 2; do
  "${GUEST_QEMU[@]}" -incoming "rdma:$LAB_B:7777" 2>&1 & guest=$!
  # RDMA's listening sockets are seen nowhere: QEMU has one when it has opened its completion channel.
  until ls -l /proc/$guest/fd 2>/dev/null | grep -q infinibandevent; do
    kill -0 $guest 2>/dev/null || break
    sleep 0.2
  done
  sleep 1
  lab_signal "qemu$turn"
  lab_wait "qemu$turn.done" 300
  guest_watch whole
  kill $guest
  wait $guest
  rm -f $GUEST_MEMORY
  lab_signal "ramferry$turn"
  lab_wait "ramferry$turn.done" 300
  guest_watch whole
  pkill qemu-system
  while pgrep qemu-system > /dev/null; do sleep 0.2; done
  rm -f $GUEST_MEMORY
done
