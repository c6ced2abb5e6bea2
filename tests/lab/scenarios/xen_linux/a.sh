# Where the guest starts.
. "$LAB_SCENARIO/scenario/common.sh"
bridge_host
xen_certificates
before=$(free_memory)
linux_start
lab_check "its network works" network_works
ramferry check xen:linux "${IDENTITY[@]}"
xen_receive
lab_meet receiving 400
code=0
guest_move broken --transport tcp || code=$?
lab_check "the destination was killed when it held all: rolled back" test $code = 4
lab_check "the guest, which had suspended, goes on here" guest_is_well
lab_signal rolled-back
guest_moves 3 guest_is_well
lab_check "the memory it had here is free again" memory_is_back "$before"
unbridge_host
