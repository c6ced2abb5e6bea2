# What a scenario's scripts can use. Sourced before a.sh and b.sh.
#
#   $LAB_host a or b    $LAB_A, $LAB_B their addresses    $LAB_nic the network interface
#                       $LAB_A6, $LAB_B6 the same in IPv6
#   $RESULTS            put files there: they come back to the directory of results
#   $FILES              both hosts see it; what the scenario names as files is there
#
# Everything a script prints comes back as $RESULTS/log; its exit code is the host's verdict.
LAB_A=10.9.0.1
LAB_B=10.9.0.2
LAB_A6=fd09::1
LAB_B6=fd09::2
RESULTS=$LAB_SCENARIO/results/$LAB_host
FILES=$LAB_SCENARIO/files

# lab_signal NAME: tells the other machine.   lab_wait NAME [SECONDS]: waits for it, 120 s unless
# told; the script ends with 124 when it does not come.
lab_signal() { touch "$LAB_SCENARIO/flags/$1"; }
lab_wait() {
  local left=$((${2:-120} * 10))
  while [ ! -e "$LAB_SCENARIO/flags/$1" ]; do
    if [ $((left--)) -le 0 ]; then
      echo "lab: gave up waiting for \"$1\""
      exit 124
    fi
    sleep 0.1
  done
}

# lab_meet NAME: both machines leave it together.
lab_meet() {
  lab_signal "$1.$LAB_host"
  lab_wait "$1.a" "${2:-120}"
  lab_wait "$1.b" "${2:-120}"
}

# lab_world VERB HOST: cut-link, mend-link, cut-power. Returns when it is done (never, on a machine
# that cuts its own power).
lab_world() {
  : > "$LAB_SCENARIO/requests/$1.$2"
  while [ ! -e "$LAB_SCENARIO/requests/$1.$2.done" ]; do sleep 0.05; done
  rm "$LAB_SCENARIO/requests/$1.$2.done"
}

# lab_listening PORT: waits until a process of this machine listens on a TCP port.
lab_listening() {
  local hex left=300
  hex=$(printf '%04X' "$1")
  until grep -q ":$hex [0-9A-F:]* 0A " /proc/net/tcp /proc/net/tcp6; do
    [ $((left--)) -le 0 ] && { echo "lab: nothing listens on $1"; exit 124; }
    sleep 0.1
  done
}

# lab_check TEXT COMMAND...: runs it, and ends the script when it fails.
lab_check() {
  local what=$1
  shift
  if "$@"; then
    echo "ok: $what"
  else
    echo "FAILED ($?): $what"
    exit 1
  fi
}
