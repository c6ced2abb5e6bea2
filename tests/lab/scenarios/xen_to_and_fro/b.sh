# The other end.
. /host/guest/xen.sh
xen_certificates
before=$(free_memory)
xen_receive
lab_meet receiving 300
guest_moves 10 guest_is_whole
lab_check "no memory was lost" memory_is_back "$before"
