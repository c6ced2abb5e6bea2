# The destination.
. /host/guest/move.sh
guest_receive
# The first move is cut off. Its reservation must go before the second can come.
until grep -q 'is not taken' /tmp/receive.log; do sleep 0.2; done
lab_check "nothing is left of the cut-off guest" sh -c "until [ ! -e $GUEST_MEMORY ]; do sleep 0.2; done"
lab_signal released
guest_has_come
