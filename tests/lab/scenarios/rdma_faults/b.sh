# The destination, one step behind a.sh. Its journal is on a small file system that can be filled.
. /host/guest/move.sh
mkdir -m 700 /tmp/state
mount -t tmpfs -o size=64k,mode=700 journal /tmp/state
fill_disk() { dd if=/dev/zero of=/tmp/state/ballast bs=4096 2> /dev/null || true; }
nothing_is_left() { until [ ! -e $GUEST_MEMORY ] && ! pgrep -f qemu-system-x86; do sleep 0.2; done; }
end_guest() {
  pkill -9 -f qemu-system-x86
  until ! pgrep -f qemu-system-x86; do sleep 0.1; done
  rm -f $GUEST_MEMORY
}
end_receiver() {
  kill "$receiver" 2> /dev/null || true
  wait "$receiver" || true
}

guest_receive
number=0
while read -r side moment fault expected; do
  number=$((number + 1))
  end_receiver
  stop=$moment
  [ $side = destination ] || stop=
  guest_receive_again env RAMFERRY_TEST_STOP=$stop
  lab_signal "ready.$number"
  if [ $side = destination ]; then
    until grep -q '^State:.T' "/proc/$receiver/status"; do sleep 0.05; done
    lab_signal "stopped.$number"
  fi
  case $fault in
    kill_destination | kill_destination_qemu | fill_disk)
      lab_wait "strike.$number" 300
      case $fault in
        kill_destination) kill -9 "$receiver"; wait "$receiver" || true ;;
        kill_destination_qemu) pkill -9 -f qemu-system-x86 ;;
        fill_disk) fill_disk ;;
      esac
      lab_signal "struck.$number" ;;
  esac
  lab_wait "go-on.$number" 300
  kill -CONT "$receiver" 2> /dev/null || true
  lab_wait "ended.$number" 300
  rm -f /tmp/state/ballast
  kill -0 "$receiver" 2> /dev/null || guest_receive_again env
  lab_signal "back.$number"
  lab_wait "settled.$number" 300
  if [ $expected = stayed ]; then
    lab_check "case $number: nothing of the guest is left" nothing_is_left
  else
    lab_check "case $number: the guest runs here, and every page is whole" guest_is_whole
    end_guest
  fi
  lab_signal "judged.$number"
done < "$FILES/cases"

end_receiver
guest_receive_again env
lab_signal receiving-again
guest_has_come
lab_check "nothing is left in the journal" test -z "$(ls /tmp/state)"
