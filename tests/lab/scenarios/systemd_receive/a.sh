# The source.
. /host/guest/move.sh
# The guest stays when the other host's receiver is told to end, whoever tells it.
stays() {
  lab_check "the move is given up" move_ends_with 4
  cat "$RESULTS/$1.txt"
  lab_check "the guest goes on here, and every page is whole" guest_is_whole
  lab_check "nothing is unsettled here" test -z "$(ls /tmp/state)"
}
guest_start
lab_wait receiving 300
guest_move stopped --bandwidth 2 & move=$!
stays stopped
lab_signal stayed
lab_wait receiving-again 300
lab_check "the guest moves" guest_move report --bandwidth 8
guest_has_left report
lab_wait guest-has-gone 300
guest_start
guest_move shut-down --bandwidth 2 & move=$!
stays shut-down
