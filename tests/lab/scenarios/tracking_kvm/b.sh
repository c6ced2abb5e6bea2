# The destination.
GUEST_ACCEL=kvm
. /host/guest/move.sh
lab_check "this emulated machine has KVM" sh -c 'modprobe kvm_amd && test -e /dev/kvm'
lab_signal ready
guest_receive
guest_has_come
