# The destination. Figures: $FILES/figures.b, TURN WHO BUSY-BEFORE BUSY-AFTER.
GUEST_MIB=288 FILL_MIB=256
. /host/guest/move.sh
# In hundredths of a second, since this host was booted.
busy() {
  local user nice system irq soft_irq
  read -r _ user nice system _ _ irq soft_irq _ < /proc/stat
  echo $((user + nice + system + irq + soft_irq))
}
# while_it_moves TURN WHO
while_it_moves() {
  local before
  before=$(busy)
  lab_signal "$2$1"
  lab_wait "$2$1.done" 300
  echo "$1 $2 $before $(busy)" >> $FILES/figures.b
  guest_is_whole
}
make_certificates
lab_signal receiving
for turn in 1 2 3; do
  "${GUEST_QEMU[@]}" -incoming "rdma:$LAB_B:7777" 2>&1 & guest=$!
  # RDMA's listening sockets are seen nowhere: QEMU has one when it has opened its completion channel.
  until ls -l /proc/$guest/fd 2>/dev/null | grep -q infinibandevent; do
    kill -0 $guest 2>/dev/null || break
    sleep 0.2
  done
  sleep 1
  while_it_moves $turn qemu
  kill $guest
  wait $guest
  rm -f $GUEST_MEMORY
  # For both a QEMU waits already.
  "${GUEST_QEMU[@]}" -incoming defer -S -qmp unix:/run/target.qmp,server=on,wait=off & guest=$!
  until [ -S /run/target.qmp ]; do sleep 0.2; done
  ramferry receive "${IDENTITY[@]}" --qmp /run/target.qmp --port 7711 --runtime-dir /tmp/run --once & receiver=$!
  lab_listening 7711
  while_it_moves $turn ramferry
  wait $receiver
  kill $guest
  wait $guest
  rm -f $GUEST_MEMORY
done
lab_signal figures
