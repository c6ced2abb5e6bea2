# The destination.
. /host/guest/move.sh
guest_receive
most_pinned > /tmp/pinned & pinned=$!
lab_wait moved 500
kill $pinned
tail -n 1 /tmp/pinned
lab_check "something was pinned" test "$(tail -n 1 /tmp/pinned)" -gt 1024
lab_check "never more than the source's budget, and 1 MiB for messages" test "$(tail -n 1 /tmp/pinned)" -le $((17 * 1024))
guest_has_come
