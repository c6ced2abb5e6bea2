# The destination.
. "$LAB_SCENARIO/scenario/common.sh"
xen_certificates
empty=$(free_memory)
for case in $CASES; do
  IFS=: read -r side order phase outcome <<< "$case"
  stop=
  [ "$side" = destination ] && stop=$order:$phase
  RAMFERRY_TEST_STOP=$stop xen_receive
  lab_signal "ready.$case"
  if [ "$side" = destination ]; then
    lab_check "$case: killed" strike "$receiver"
    wait "$receiver"
    xen_receive
  else
    lab_wait "struck.$case" 300
  fi
  lab_signal "again.$case"
  lab_wait "settled.$case" 300
  if [ "$outcome" = moved ]; then
    lab_check "$case: it runs here, and every page is whole" guest_is_whole
    lab_check "$case: it moves back" guest_move back --transport tcp
    lab_signal "back.$case"
  fi
  lab_check "$case: nothing of it is left here" nothing_is_left
  lab_check "$case: no memory was lost" memory_is_back "$empty"
  kill "$receiver"
  wait "$receiver"
done
xen_receive
lab_wait moved 300
lab_check "the guest goes on, and every page is whole" guest_is_whole
lab_signal seen
