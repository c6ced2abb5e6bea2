# The source. $LAB_B is an address of the network that has no RDMA here.
. /host/guest/move.sh
lab_check "no RDMA on the first network" rdma link delete rxe0
guest_start
lab_wait receiving 300
before=$(packets_sent rxe1)
lab_check "the guest moves" guest_move report --transport rdma
lab_check "the other network carried the pages" test $(($(packets_sent rxe1) - before)) -gt 1000
guest_has_left report
