# The source. $LAB_B is an address of the network that has no RDMA here.
. /host/guest/move.sh
sent_by() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/sent_pkts"; }
lab_check "no RDMA on the first network" rdma link delete rxe0
guest_start
lab_wait receiving 300
before=$(sent_by rxe1)
ticks=$(guest_counter ticks)
lab_check "the guest moves" guest_move report --transport rdma
lab_check "its memory was compared" reported report verified true
lab_check "the other network carried the pages" test $(($(sent_by rxe1) - before)) -gt 1000
lab_check "its QEMU has ended here" wait $guest
echo "$ticks" > $FILES/ticks
lab_signal moved
