# The source.
. /host/guest/move.sh
sent_by() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/sent_pkts"; }
guest_start
lab_wait receiving 300
before0=$(sent_by rxe0) before1=$(sent_by rxe1)
ticks=$(guest_counter ticks)
lab_check "the guest moves" guest_move report --transport rdma --workers 2
lab_check "its memory was compared" reported report verified true
echo "packets: rxe0 $(($(sent_by rxe0) - before0)), rxe1 $(($(sent_by rxe1) - before1))"
lab_check "the first device carried pages" test $(($(sent_by rxe0) - before0)) -gt 500
lab_check "the second device carried pages" test $(($(sent_by rxe1) - before1)) -gt 500
lab_check "its QEMU has ended here" wait $guest
echo "$ticks" > $FILES/ticks
lab_signal moved
