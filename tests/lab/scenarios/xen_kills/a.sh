# The source.
. "$LAB_SCENARIO/scenario/common.sh"
xen_certificates
guest_start
xen_receive  # for the way back
with_guest=$(free_memory)
for case in $CASES; do
  IFS=: read -r side order phase outcome <<< "$case"
  lab_wait "ready.$case" 300
  stop=
  [ "$side" = source ] && stop=$order:$phase
  RAMFERRY_TEST_STOP=$stop ramferry migrate xen:guest "$LAB_OTHER:7711" "${IDENTITY[@]}" --transport tcp --data-encryption off --downtime 3000 \
    > "$RESULTS/$case.txt" 2>&1 & move=$!
  [ "$side" = source ] && lab_check "$case: killed" strike $move
  wait $move
  echo "ramferry migrate ended with $?"
  cat "$RESULTS/$case.txt"
  lab_signal "struck.$case"
  lab_wait "again.$case" 300
  lab_check "$case: settled" settle
  lab_signal "settled.$case"
  if [ "$outcome" = stayed ]; then
    lab_check "$case: it runs on here, and every page is whole" guest_is_whole
  else
    lab_check "$case: nothing of it is left here" nothing_is_left
    lab_wait "back.$case" 300
    lab_check "$case: it came back whole" guest_is_whole
  fi
  lab_check "$case: no memory was lost" memory_is_back "$with_guest"
done
lab_check "after all that it still moves (so Xen does not track its writes any more)" guest_move last --transport tcp
lab_check "nothing of it is left here" nothing_is_left
lab_signal moved
lab_wait seen 300
