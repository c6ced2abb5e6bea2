// What the test guest needs of the machine: ports, clock, timer interrupt, start info. 32-bit x86
// only.
#pragma once

#include <stdint.h>

static inline void OutByte(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t InByte(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline uint64_t ReadTsc(void) {
  uint64_t value;
  __asm__ volatile("rdtsc" : "=A"(value));
  return value;
}

// 64 by 32 bit division; the compiler's own would need a run-time library. `divisor` must not be 0.
static inline uint64_t Divide(uint64_t dividend, uint32_t divisor) {
  uint32_t high = (uint32_t)(dividend >> 32);
  uint32_t low = (uint32_t)dividend;
  uint32_t quotient_high = high / divisor;
  uint32_t remainder = high % divisor;
  uint32_t quotient_low;
  __asm__("divl %3" : "=a"(quotient_low), "+d"(remainder) : "0"(low), "rm"(divisor) : "cc");
  return (uint64_t)quotient_high << 32 | quotient_low;
}

// Frequency of the TSC in kHz: by the PIT where there is one, else as the hypervisor tells it by
// CPUID, else 0.
uint32_t MeasureTscKhz(void);

// Lets the PIT interrupt every `period_us` (at most 54000) so that Halt returns at least as often.
void StartTimer(uint32_t period_us);

// Sleeps until the next timer interrupt. Only after StartTimer.
void Halt(void);

// Sets COM1 to 115200 8N1, so that the guest may send bytes.
void StartSerial(void);

// Start info of the PVH boot protocol (Xen: public/arch-x86/hvm/start_info.h).
struct StartInfo {
  uint32_t magic;  // kStartInfoMagic
  uint32_t version;
  uint32_t flags;
  uint32_t module_count;
  uint64_t modules;
  uint64_t command_line;
  uint64_t rsdp;
  uint64_t memory_map;  // from version 1 on
  uint32_t memory_map_entries;
  uint32_t reserved;
};

struct MemoryMapEntry {
  uint64_t address;
  uint64_t size;
  uint32_t type;  // 1: RAM
  uint32_t reserved;
};

#define START_INFO_MAGIC 0x336ec578u

// End of the RAM that reaches from `start` on without a hole, below 4 GiB; 0 if the start info has
// no map.
uint64_t EndOfRam(const struct StartInfo* info, uint32_t start);
