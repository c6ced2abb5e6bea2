# The source. Twice RDMA fails in the middle of round 1.
. /host/guest/move.sh

guest_start
lab_wait receiving 300

begin_move cut
lab_world cut-link a
lab_check "without any link the move is rolled back" move_ends_with 4
lab_check "the report says so" reported cut outcome '"rolled-back"'
lab_check "the guest runs on here, and every page is whole" guest_is_whole
lab_world mend-link a
lab_wait released 300
rdma_is_back

begin_move gone
lab_check "the RDMA device goes away" rdma link delete rxe0
lab_check "the move goes on without it" wait $move
lab_check "over TCP" reported gone transport '"tcp-tls"'
lab_check "the source says why" grep -q 'rdma has failed (.*going on over another transport' "$RESULTS/gone.txt"
guest_has_left gone
