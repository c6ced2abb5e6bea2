// The test guest's parameters, from its command line: `name=value`, separated by spaces.
//
//   fill_mib=64        memory to fill from 16 MiB on; all of it is checked all the time
//   wss_mib=16         the writable working set: the first so many MiB of it are rewritten
//   rate=1000          pages rewritten a second; 0: as many as it can
//   check_rate=0       pages a second that the sweep checks; 0: as many as it can
//   pattern=uniform    which page is next: uniform, sequential, or hot (7 of 8 rewrites go to the
//   first
//                      1/16 of the working set)
//   burst_ms=0         rewrites for so long, then for as long not, and so on; 0: always
//   zero_pct=0         of 100 rewrites, so many set the page back to all zeros
//   tick_us=1000       time between ticks, 100 to 1000000
//   tick_port=serial   where a tick's byte goes: serial (0x3f8), debugcon (0xe9), none
//   tsc_khz=0          the TSC's frequency; 0: measured
//   idle=spin          between work: spin, or halt (needs an 8259 and a PIT: QEMU, not Xen PVH, and
//   a
//                      check_rate, else there is always something to check)
#pragma once

#include <stdint.h>

enum Pattern { kUniform = 0, kSequential = 1, kHot = 2 };

struct Parameters {
  uint32_t fill_mib;
  uint32_t wss_mib;
  uint32_t rate;
  uint32_t check_rate;
  uint32_t pattern;
  uint32_t zero_pct;
  uint32_t tick_us;
  uint32_t tick_port;
  uint32_t tsc_khz;
  uint32_t halt;
  uint32_t burst_ms;
};

// Returns 1 and the parameters, or 0 when the line has an unknown name or a value out of range.
// Words without `=` are passed over (a loader may add its own).
int ParseParameters(const char* line, struct Parameters* parameters);
