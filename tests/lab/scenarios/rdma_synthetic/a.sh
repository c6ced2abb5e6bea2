# The source.
. /host/guest/move.sh
send() {
  local name=$1
  shift
  lab_wait "$name" 300
  lab_check "$name: the synthetic guest moves" synthetic_move send $CERTIFICATES a /tmp/state $LAB_B:7711 \
    --transport rdma "$@" | tee "$RESULTS/$name.txt"
  [ "${PIPESTATUS[0]}" = 0 ] || exit 1
  lab_check "$name: while it worked" grep -q '^round 1: .* dirty again [1-9]' "$RESULTS/$name.txt"
}
send registered --pin-budget 16 --workers 2
send staged --unregistered
