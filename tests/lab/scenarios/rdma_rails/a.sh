# The source.
. /host/guest/move.sh
guest_start
lab_wait receiving 300
before0=$(packets_sent rxe0) before1=$(packets_sent rxe1)
lab_check "the guest moves" guest_move report --transport rdma --workers 2
echo "packets: rxe0 $(($(packets_sent rxe0) - before0)), rxe1 $(($(packets_sent rxe1) - before1))"
lab_check "the first device carried pages" test $(($(packets_sent rxe0) - before0)) -gt 500
lab_check "the second device carried pages" test $(($(packets_sent rxe1) - before1)) -gt 500
guest_has_left report
