# For scenarios that move the project's test guest from a to b; they begin with `. /host/guest/move.sh`.
#
# The guest rewrites memory slowly and halts in between: the emulated host has one CPU for the guest,
# both ends of Ramferry and soft-RoCE. Its tick counter goes on as long as it runs.
# A scenario may set how large it is, and what runs it, before it sources this file.
: "${GUEST_MIB:=48}" "${FILL_MIB:=24}" "${GUEST_ACCEL:=tcg,tb-size=32}"
GUEST_MEMORY=/dev/shm/guest
GUEST_QEMU=(qemu-system-x86_64 -name guest -accel "$GUEST_ACCEL" -machine q35,memory-backend=ram0 -m ${GUEST_MIB}M
  -nodefaults -no-user-config -display none
  -object "memory-backend-file,id=ram0,size=${GUEST_MIB}M,share=on,mem-path=$GUEST_MEMORY"
  -kernel /host/bin/testguest.elf
  -append "fill_mib=$FILL_MIB wss_mib=4 rate=40 check_rate=2000 zero_pct=20 tick_us=10000 tick_port=none idle=halt")
CERTIFICATES=$FILES/certificates
IDENTITY=(--ca $CERTIFICATES/ca.pem --cert "$CERTIFICATES/$LAB_host.pem" --key "$CERTIFICATES/$LAB_host-key.pem"
  --state-dir /tmp/state)

# guest_on_nodes POLICY0 POLICY1: makes it a guest with two NUMA nodes of GUEST_MIB each and a vCPU on each; a POLICY
# is where the node's memory comes from on this host: host-nodes=N,policy=bind, or nothing.
guest_on_nodes() {
  GUEST_MEMORY=/dev/shm/guest0
  GUEST_QEMU=(qemu-system-x86_64 -name guest -accel "$GUEST_ACCEL" -machine q35 -m $((2 * GUEST_MIB))M -smp 2
    -nodefaults -no-user-config -display none
    -object "memory-backend-file,id=ram0,size=${GUEST_MIB}M,share=on,mem-path=/dev/shm/guest0${1:+,$1}"
    -object "memory-backend-file,id=ram1,size=${GUEST_MIB}M,share=on,mem-path=/dev/shm/guest1${2:+,$2}"
    -numa node,nodeid=0,cpus=0,memdev=ram0 -numa node,nodeid=1,cpus=1,memdev=ram1
    "${GUEST_QEMU[@]: -4}")
}

# guest_disk: on both hosts; gives the guest the disk that both reach, which looks as one of a storage network does.
guest_disk() {
  modprobe -a virtio_scsi sd_mod
  until [ -b /dev/sda ]; do sleep 0.1; done
  GUEST_QEMU+=(-drive file=/dev/sda,format=raw,if=virtio,cache=none)
}

# Out of the slow 9p file system: a program's first steps must not take longer than its peer waits.
cp -r /host/bin /host/lib /tmp/
export PATH=/tmp/bin:$PATH LD_LIBRARY_PATH=/tmp/lib

# guest_ticks: that the guest on this host has given.
guest_ticks() { guest_watch "$GUEST_MEMORY" ticks; }
# guest_is_whole: on the host where it runs: every page is what the guest wrote, and its ticks go on.
guest_is_whole() { guest_watch "$GUEST_MEMORY" whole; }

# guest_start: on a; returns when the guest has filled its memory. Its process is $guest.
guest_start() {
  "${GUEST_QEMU[@]}" -qmp unix:/run/guest.qmp,server=on,wait=off & guest=$!
  lab_check "the test guest runs" guest_watch "$GUEST_MEMORY" running
}

make_certificates() {
  lab_check "certificates" ramferry certs $CERTIFICATES --host "a=$LAB_A,$LAB_A6" --host "b=$LAB_B,$LAB_B6"
}

# guest_receive COMMAND...: on b; makes the certificates, takes guests in the background, run by COMMAND if there is
# one, with $RECEIVE_FLAGS if there are any. Its process is $receiver; what it says is in /tmp/receive.log as well.
guest_receive() {
  make_certificates
  guest_receive_again "$@"
  lab_signal receiving
}
# The same with the certificates that there are, after the first one has ended.
guest_receive_again() {
  local words
  words=$(printf '"%s", ' "${GUEST_QEMU[@]}")
  printf 'name = "guest"\nargv = [%s]\n' "${words%, }" > /tmp/guest.toml
  "$@" ramferry receive "${IDENTITY[@]}" --guest /tmp/guest.toml --port 7711 --runtime-dir /tmp/run \
    "${RECEIVE_FLAGS[@]}" \
    2> >(tee -a /tmp/receive.log) & receiver=$!
  lab_listening 7711
}

# packets_sent DEVICE: by an RDMA device of this host, since it was made.
packets_sent() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/sent_pkts"; }

# begin_move REPORT FLAG...: on a; a slow move in the background, $move; returns when a part of the guest's 24 MiB has
# gone over RDMA, by $RDMA_DEVICE, in packets of 4 KiB.
: "${RDMA_DEVICE:=rxe0}"
begin_move() {
  local start
  start=$(packets_sent $RDMA_DEVICE)
  guest_move "$1" --transport auto --bandwidth 2 "${@:2}" & move=$!
  until [ $(($(packets_sent $RDMA_DEVICE) - start)) -gt 1000 ]; do
    kill -0 $move 2>/dev/null || { echo "FAILED: the move ended too early"; cat "$RESULTS/$1.txt"; exit 1; }
    sleep 0.1
  done
}
# move_ends_with CODE: of the move in the background.
move_ends_with() {
  local code=0
  wait $move || code=$?
  echo "ramferry migrate ended with $code"
  [ $code = "$1" ]
}
# rdma_is_back: after the link was mended.
rdma_is_back() { until grep -q ACTIVE /sys/class/infiniband/rxe0/ports/1/state; do sleep 0.1; done; }

# guest_move REPORT FLAG...: on a; exit code of `ramferry migrate`, to $DESTINATION, run by $MOVE_UNDER. The report comes back as $RESULTS/REPORT.json,
# what was printed as $RESULTS/REPORT.txt. Memory is compared, unless $VERIFY is empty.
: "${DESTINATION:=$LAB_B:7711}"
guest_move() {
  local name=$1 code=0
  shift
  guest_ticks > $FILES/ticks
  # A small emulated host needs long for the fixed parts of a downtime.
  ${MOVE_UNDER-} ramferry migrate qemu:/run/guest.qmp "$DESTINATION" "${IDENTITY[@]}" --json "$RESULTS/$name.json" ${VERIFY---verify} \
    --downtime 2000 --max-rounds 6 --if-not-converging stop "$@" > "$RESULTS/$name.txt" 2>&1 || code=$?
  cat "$RESULTS/$name.txt"
  return $code
}

# reported REPORT KEY VALUE: whether the report says so; VALUE as JSON has it.
reported() { grep -qF "\"$2\": $3" "$RESULTS/$1.json"; }

# most_pinned: the most KiB that a ramferry of this host had pinned, as it grows; until it is killed.
most_pinned() {
  local most=-1 now
  while sleep 0.1; do
    now=$(for pid in $(pgrep -x ramferry); do sed -n 's/^VmPin:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status"; done |
      sort -n | tail -n 1)
    [ "${now:-0}" -gt $most ] && most=${now:-0} && echo "$most"
  done
}

# guest_has_left REPORT: the end of a's part, when the guest has moved.
guest_has_left() {
  lab_check "its memory was compared" reported "$1" verified true
  lab_check "its QEMU has ended here" wait $guest
  lab_signal moved
}
# guest_has_come: the end of b's part.
guest_has_come() {
  lab_wait moved 500
  lab_check "the guest goes on, and every page is whole" guest_is_whole
  lab_check "it went on from where it was" test "$(guest_ticks)" -gt "$(cat $FILES/ticks)"
}
