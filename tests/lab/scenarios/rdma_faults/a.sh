# The source, and the judge. For each line of `cases`: the side and the journal write at which it stops
# (tests/fault), the fault that strikes there, and what must become of the guest. b.sh follows in step.
FILL_MIB=8 VERIFY=
. /host/guest/move.sh
printf '[migrate]\nanswer_s = 20\nsettle_s = 3\n' > /tmp/source.toml

ferry_stands() { grep -q '^State:.T' "/proc/$ferry/status"; }
nothing_is_open() { ! ls /tmp/state/*.source.json; }
rest_of() { (cd /tmp/state && ls ./*."$1".json); } 2> /dev/null

lab_wait receiving 300
number=0
while read -r side moment fault expected; do
  number=$((number + 1)) case="$side $moment, $fault: $expected"
  [ -n "${guest-}" ] && kill -0 "$guest" 2> /dev/null || guest_start
  lab_wait "ready.$number" 300
  stop=$moment
  [ $side = source ] || stop=
  RAMFERRY_TEST_STOP=$stop guest_move "case$number" --transport rdma --config /tmp/source.toml & move=$!
  until ferry=$(pgrep -x ramferry); do sleep 0.05; done
  if [ $side = source ]; then
    until ferry_stands; do
      kill -0 $move 2> /dev/null || { echo "FAILED: the move ended too early: $case"; exit 1; }
      sleep 0.05
    done
  else
    lab_wait "stopped.$number" 300
  fi
  case $fault in
    kill_source) kill -9 "$ferry" ;;
    cut_link) lab_world cut-link a ;;
    reset_connections) (cd "$FILES" && python3 -S -B -c "import connections; assert connections.reset($ferry) > 0") ;;
    *) lab_signal "strike.$number"; lab_wait "struck.$number" ;;
  esac
  kill -CONT "$ferry" 2> /dev/null || true
  lab_signal "go-on.$number"
  code=0
  wait $move || code=$?
  if [ $fault = cut_link ]; then
    lab_world mend-link a
    rdma_is_back
  fi
  lab_signal "ended.$number"
  lab_wait "back.$number" 300
  until nothing_is_open > /dev/null 2>&1; do
    for entry in $(rest_of source); do
      entry=${entry#./}
      ramferry resolve "${entry%%.*}" "${IDENTITY[@]}" || sleep 0.5
    done
  done
  lab_signal "settled.$number"
  if [ $expected = stayed ]; then
    lab_check "$case (migrate ended with $code)" guest_is_whole
  else
    lab_check "$case (migrate ended with $code)" wait "$guest"
  fi
  lab_wait "judged.$number" 300
done < "$FILES/cases"

[ -n "${guest-}" ] && kill -0 "$guest" 2> /dev/null || guest_start
lab_wait receiving-again 300
VERIFY=--verify
lab_check "after all that the guest moves over RDMA" guest_move last --transport rdma
lab_check "nothing is left in the journal" test -z "$(rest_of source)"
guest_has_left last
