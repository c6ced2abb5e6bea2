# The source. RDMA on the second network only, so that the first goes on without it.
RDMA_DEVICE=rxe1
. /host/guest/move.sh
second=$(rdma link show rxe1/1 | sed 's/.*netdev \([^ ]*\).*/\1/')
lab_check "no RDMA on the first network" rdma link delete rxe0
guest_start
lab_wait receiving 300
# It waits in the step before the guest is stopped; what the guest wrote last has not left yet.
RAMFERRY_TEST_STOP=after:pausing guest_move gone --transport auto --rdma-address 10.9.1.1 & move=$!
until ferry=$(pgrep -x ramferry) && grep -q '^State:.T' "/proc/$ferry/status"; do
  kill -0 $move 2>/dev/null || { echo "FAILED: the move ended too early"; exit 1; }
  sleep 0.2
done
lab_check "so far it went over RDMA" grep -q 'page channel.* over rdma' "$RESULTS/gone.txt"
lab_check "the address goes away" ip addr del 10.9.1.1/24 dev "$second"
kill -CONT "$ferry"
lab_check "the move goes on without it" wait $move
ip addr add 10.9.1.1/24 dev "$second"
lab_check "over TCP" reported gone transport '"tcp-tls"'
lab_check "the source says why" grep -q 'rdma has failed (.*has lost the address (GID) in use.*going on over another transport' \
  "$RESULTS/gone.txt"
guest_has_left gone
