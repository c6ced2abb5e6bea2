# Where the guest starts, and ends after ten moves.
. /host/guest/xen.sh
xen_certificates
before=$(free_memory)
guest_start
xen_receive
lab_meet receiving 300
guest_moves 10 guest_is_whole
lab_check "it is here" guest_is_here
xl destroy guest
lab_check "no memory was lost" memory_is_back "$before"
