# The destination.
. /host/guest/move.sh
guest_disk
guest_receive
guest_has_come
