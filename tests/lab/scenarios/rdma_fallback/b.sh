# The destination.
. /host/guest/move.sh
guest_receive
# The first move is cut off. Its reservation must go before the second can come.
until grep -q 'is not taken' /tmp/receive.log; do sleep 0.2; done
lab_check "nothing is left of the cut-off guest" sh -c "until [ ! -e $GUEST_MEMORY ]; do sleep 0.2; done"
lab_signal released
lab_wait moved 500
lab_check "the guest goes on, and every page is whole" guest_is_whole
lab_check "it went on from where it was" test "$(guest_counter ticks)" -gt "$(cat $FILES/ticks)"
