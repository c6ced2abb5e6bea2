# The source. RDMA on the second network only, so that the first goes on without it.
RDMA_DEVICE=rxe1
. /host/guest/move.sh
second=$(rdma link show rxe1/1 | sed 's/.*netdev \([^ ]*\).*/\1/')
lab_check "no RDMA on the first network" rdma link delete rxe0
guest_start
lab_wait receiving 300
begin_move gone --rdma-address 10.9.1.1
lab_check "the address goes away" ip addr del 10.9.1.1/24 dev "$second"
lab_check "the move goes on without it" wait $move
ip addr add 10.9.1.1/24 dev "$second"
lab_check "over TCP" reported gone transport '"tcp-tls"'
lab_check "the source says why" grep -q 'rdma has failed (.*has lost the address (GID) in use.*going on over another transport' \
  "$RESULTS/gone.txt"
guest_has_left gone
