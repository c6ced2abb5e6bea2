# The destination.
GUEST_ACCEL=kvm
. /host/guest/move.sh
lab_check "this emulated machine has KVM" sh -c 'modprobe kvm_amd && test -e /dev/kvm'
lab_signal ready
guest_receive
lab_wait moved 500
lab_check "the guest goes on, and every page is whole" guest_is_whole
lab_check "it went on from where it was" test "$(guest_counter ticks)" -gt "$(cat $FILES/ticks)"
