# Entry of the test guest, by the PVH boot protocol: 32-bit protected mode, flat segments, no paging,
# interrupts off, %ebx = address of the start info. (Xen: docs/misc/pvh.pandoc.)
.section .note.Xen,"a",@note
.align 4
.long 4                         # length of the name
.long 4                         # length of the value
.long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.long Start

.text
.code32
.globl Start
Start:
  cld
  movl $stack_top, %esp
  xorl %ebp, %ebp
  movl %cr0, %eax
  andl $0x9fffffff, %eax        # caches on
  movl %eax, %cr0
  lgdt gdt_pointer              # a table of our own: the loader's may lie in memory that we fill
  ljmp $0x08, $1f
1:
  movw $0x10, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  pushl %ebx
  call TestGuestMain
2:
  cli
  hlt
  jmp 2b

# The timer interrupt only has to end a HLT; the time itself is read from the TSC.
.globl TimerInterrupt
TimerInterrupt:
  pushl %eax
  movb $0x20, %al               # end of interrupt to the first 8259
  outb %al, $0x20
  popl %eax
  iret

.globl SpuriousInterrupt
SpuriousInterrupt:
  iret

.data
.align 8
gdt:
  .quad 0
  .quad 0x00cf9b000000ffff      # 0x08: code, 0 to 4 GiB
  .quad 0x00cf93000000ffff      # 0x10: data, 0 to 4 GiB
gdt_pointer:
  .word gdt_pointer - gdt - 1
  .long gdt

.bss
.align 16
stack:
  .skip 16384
stack_top:
.section .note.GNU-stack,"",@progbits
