# The destination.
GUEST_MIB=112
RECEIVE_FLAGS=(--data-encryption off)
. /host/guest/move.sh
. "$LAB_SCENARIO/scenario/guest.sh"
guest_receive
lab_wait measured 1500
