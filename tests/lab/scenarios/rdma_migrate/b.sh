# The destination.
. /host/guest/move.sh
guest_receive
guest_has_come
