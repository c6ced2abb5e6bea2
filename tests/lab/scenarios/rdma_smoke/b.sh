lab_wait rping
lab_check "rping client" rping -c -a $LAB_A -C 10
for size in 4096 65536 1048576; do
  lab_wait bw.$size
  lab_check "ib_write_bw, $size bytes" ib_write_bw -d rxe0 -s $size -n 100 -F $LAB_A
done
