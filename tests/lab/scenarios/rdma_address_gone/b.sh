# The destination.
. /host/guest/move.sh
lab_check "no RDMA on the first network" rdma link delete rxe0
guest_receive
guest_has_come
