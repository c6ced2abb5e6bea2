# The source. KVM by the emulator's SVM: slow, but it is the kernel's real KVM with its own page tables.
GUEST_ACCEL=kvm
. /host/guest/move.sh
lab_check "this emulated machine has KVM" sh -c 'modprobe kvm_amd && test -e /dev/kvm'
lab_wait ready 300
guest_start
lab_wait receiving 300
lab_check "the guest moves" guest_move report --transport auto --bandwidth 8
lab_check "writes were seen meanwhile" grep -q '^round 1: .* dirty again [1-9]' "$RESULTS/report.txt"
guest_has_left report
