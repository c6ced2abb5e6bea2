# The destination.
. /host/guest/move.sh
make_certificates
receive() {
  local name=$1
  shift
  synthetic_move receive $CERTIFICATES b /tmp/state 7711 --transport rdma "$@" & receiver=$!
  lab_listening 7711
  lab_signal "$name"
  lab_check "$name: every byte is what the guest's last step left" wait $receiver
}
receive registered --pin-budget 16
receive staged
