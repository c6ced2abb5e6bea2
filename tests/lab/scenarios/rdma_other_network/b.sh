# The destination.
. /host/guest/move.sh
lab_check "no RDMA on the first network" rdma link delete rxe0
guest_receive
lab_wait moved 500
lab_check "the guest goes on, and every page is whole" guest_is_whole
lab_check "it went on from where it was" test "$(guest_counter ticks)" -gt "$(cat $FILES/ticks)"
