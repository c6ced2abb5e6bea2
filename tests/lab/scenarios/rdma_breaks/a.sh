# The source. The same guest is to be moved three times; the third time it goes.
. /host/guest/move.sh
guest_start
lab_wait receiving 300

# It waits in the step before the guest is stopped; the link goes; the last pages find none.
RAMFERRY_TEST_STOP=after:pausing guest_move cut --transport auto & move=$!
until ferry=$(pgrep -x ramferry) && grep -q '^State:.T' "/proc/$ferry/status"; do
  kill -0 $move 2>/dev/null || { echo "FAILED: the move ended too early"; exit 1; }
  sleep 0.2
done
lab_world cut-link a
kill -CONT "$ferry"
lab_check "without a link in stop-and-copy the move is rolled back" move_ends_with 4
lab_check "the report says so" reported cut outcome '"rolled-back"'
lab_check "it came as far as that" reported cut stage '"stop-and-copy"'
lab_check "the guest runs on here, and every page is whole" guest_is_whole
lab_world mend-link a
lab_wait released 300
rdma_is_back

begin_move killed
lab_signal kill
lab_check "without a destination the move is rolled back" move_ends_with 4
lab_check "the report says so" reported killed outcome '"rolled-back"'
lab_check "the guest runs on here, and every page is whole" guest_is_whole

lab_wait receiving-again 300
lab_check "with too few registrations at the destination the guest moves" guest_move few --transport auto
lab_check "the source says why not over RDMA" grep -q 'rdma has failed (.*cannot register' "$RESULTS/few.txt"
lab_check "over TCP" reported few transport '"tcp-tls"'
guest_has_left few
