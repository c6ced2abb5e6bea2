#include "platform.h"

#define PIT_HZ 1193182u

// Reads the PIT's channel 2 and the TSC at (nearly) the same time. On a busy host the two reads may
// lie apart, so it takes the closest of a few pairs.
static void ReadPair(uint32_t* count, uint64_t* tsc) {
  uint64_t best = ~0ull;
  for (int i = 0; i < 8; ++i) {
    uint64_t before = ReadTsc();
    OutByte(0x43, 0x80);  // latch channel 2
    uint32_t low = InByte(0x42);
    uint32_t high = InByte(0x42);
    uint64_t after = ReadTsc();
    if (after - before < best) {
      best = after - before;
      *count = high << 8 | low;
      *tsc = before + (after - before) / 2;
    }
  }
}

static uint32_t TscKhzByPit(void) {
  const uint32_t kWanted = PIT_HZ / 100;  // 10 ms
  const uint8_t kOutput = 0x20;           // of port 0x61: channel 2 has counted down
  for (int attempt = 0; attempt < 5; ++attempt) {
    OutByte(0x61, (InByte(0x61) & 0xfc) | 1);  // gate on, speaker off
    OutByte(0x43, 0xb0);                       // channel 2, both bytes, mode 0: counts down once
    OutByte(0x42, 0xff);
    OutByte(0x42, 0xff);
    uint32_t first_count = 0, count = 0;
    uint64_t first_tsc = 0, tsc = 0;
    ReadPair(&first_count, &first_tsc);
    do {
      ReadPair(&count, &tsc);
      // Without a PIT the count stands still. This is a second or so at any likely frequency.
      if (tsc - first_tsc > 4000000000ull) return 0;
    } while (count >= first_count || first_count - count < kWanted);
    // If the host kept us waiting for so long that the counter went round, the figures are
    // worthless.
    if (InByte(0x61) & kOutput) continue;
    return (uint32_t)Divide((tsc - first_tsc) * PIT_HZ, (first_count - count) * 1000);
  }
  return 0;
}

static uint32_t Cpuid(uint32_t leaf, uint32_t subleaf, uint32_t* ebx, uint32_t* ecx,
                      uint32_t* edx) {
  uint32_t eax = leaf;
  *ecx = subleaf;
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(*ebx), "+c"(*ecx), "=d"(*edx));
  return eax;
}

static uint32_t TscKhzByCpuid(void) {
  const uint32_t kXen = 0x566e6558, kKvm = 0x4b4d564b;  // "XenV", "KVMK"
  uint32_t b, c, d;
  for (uint32_t base = 0x40000000; base < 0x40010000; base += 0x100) {
    uint32_t last = Cpuid(base, 0, &b, &c, &d);
    if (b == kXen && last >= base + 3) {
      Cpuid(base + 3, 0, &b, &c, &d);
      return c;  // guest TSC frequency in kHz
    }
    if (b == kKvm && last >= base + 0x10) return Cpuid(base + 0x10, 0, &b, &c, &d);
  }
  return 0;
}

uint32_t MeasureTscKhz(void) {
  uint32_t khz = TscKhzByPit();
  return khz != 0 ? khz : TscKhzByCpuid();
}

struct __attribute__((packed)) Gate {
  uint16_t offset_low;
  uint16_t selector;
  uint16_t type;
  uint16_t offset_high;
};

void TimerInterrupt(void);     // start.S
void SpuriousInterrupt(void);  // start.S

static struct Gate interrupt_table[256] __attribute__((aligned(8)));

static void SetGate(uint32_t vector, void (*handler)(void)) {
  uint32_t offset = (uint32_t)handler;
  interrupt_table[vector].offset_low = (uint16_t)offset;
  interrupt_table[vector].selector = 0x08;
  interrupt_table[vector].type = 0x8e00;  // present, 32-bit interrupt gate
  interrupt_table[vector].offset_high = (uint16_t)(offset >> 16);
}

void StartTimer(uint32_t period_us) {
  const uint8_t kFirstVector = 0x20;
  for (uint32_t vector = kFirstVector; vector < 256; ++vector) SetGate(vector, SpuriousInterrupt);
  SetGate(kFirstVector, TimerInterrupt);
  struct __attribute__((packed)) {
    uint16_t limit;
    uint32_t base;
  } pointer = {sizeof(interrupt_table) - 1, (uint32_t)interrupt_table};
  __asm__ volatile("lidt %0" : : "m"(pointer));

  // Both 8259: vectors from kFirstVector, everything masked but the timer.
  OutByte(0x20, 0x11);
  OutByte(0xa0, 0x11);
  OutByte(0x21, kFirstVector);
  OutByte(0xa1, kFirstVector + 8);
  OutByte(0x21, 0x04);
  OutByte(0xa1, 0x02);
  OutByte(0x21, 0x01);
  OutByte(0xa1, 0x01);
  OutByte(0xa1, 0xff);
  OutByte(0x21, 0xfe);

  uint32_t divisor = (uint32_t)Divide((uint64_t)period_us * PIT_HZ, 1000000);
  OutByte(0x43, 0x34);  // channel 0, both bytes, mode 2: rate generator
  OutByte(0x40, (uint8_t)divisor);
  OutByte(0x40, (uint8_t)(divisor >> 8));
}

void Halt(void) {
  __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
}

void StartSerial(void) {
  OutByte(0x3f9, 0x00);  // no interrupts
  OutByte(0x3fb, 0x80);  // divisor latch
  OutByte(0x3f8, 0x01);  // 115200
  OutByte(0x3f9, 0x00);
  OutByte(0x3fb, 0x03);  // 8N1
  OutByte(0x3fa, 0x07);  // FIFOs on and empty
}

uint64_t EndOfRam(const struct StartInfo* info, uint32_t start) {
  if (info->magic != START_INFO_MAGIC || info->version < 1 || info->memory_map == 0) return 0;
  const struct MemoryMapEntry* map = (const struct MemoryMapEntry*)(uint32_t)info->memory_map;
  const uint64_t kLimit = 0xfffff000ull;
  for (uint32_t i = 0; i < info->memory_map_entries; ++i) {
    uint64_t end = map[i].address + map[i].size;
    if (map[i].type != 1 || map[i].address > start || end <= start) continue;
    return end < kLimit ? end : kLimit;
  }
  return start;
}
