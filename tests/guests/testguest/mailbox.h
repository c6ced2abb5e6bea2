// The page in which the test guest shows what it is doing: the contract between guest and host
// tools.
//
// The guest writes it at guest-physical address kMailboxAddress. A host tool reads it through the
// guest's shared memory file, at the same offset of the file that backs guest memory from 0
// upwards. C and C++ include this file; mailbox.py parses it, so that there is one description
// only. Keep every field of the structs on a line of its own, as `uint32_t name;` or `uint64_t
// name;`.
//
// Reading without tearing, also from a guest that was stopped in the middle of an update: the guest
// fills counters[(publication + 1) % 2] and then adds one to `publication`. So copy
// counters[publication % 2], read `publication` again, and start over if it has changed.
#pragma once

#include <stdint.h>

#define TESTGUEST_MAILBOX_ADDRESS 0x200000u
#define TESTGUEST_MAILBOX_MAGIC 0x59525245464d4152ull  // "RAMFERRY" in memory
#define TESTGUEST_MAILBOX_VERSION 1u
#define TESTGUEST_FILL_START 0x1000000u  // the first filled page: 16 MiB
#define TESTGUEST_ZERO_MARK 0x80000000u  // set in a remembered generation: the page is all zeros

// counters.state
#define TESTGUEST_STATE_STARTING 0u
#define TESTGUEST_STATE_FILLING 1u
#define TESTGUEST_STATE_RUNNING 2u
#define TESTGUEST_STATE_REFUSED 3u  // the parameters cannot be met; see counters.refusal

// counters.refusal
#define TESTGUEST_REFUSAL_NONE 0u
#define TESTGUEST_REFUSAL_FILL_TOO_LARGE 1u  // more than the RAM from 16 MiB up to the first hole
#define TESTGUEST_REFUSAL_BAD_PARAMETER 2u   // an unknown name or value on the command line

struct TestGuestCounters {
  uint64_t state;
  uint64_t refusal;
  uint64_t ticks;           // ticks given since the start; never goes back
  uint64_t filled_pages;    // pages filled so far; in state running: all of them
  uint64_t work;            // pages rewritten
  uint64_t work_zeroed;     // of these: set back to all zeros
  uint64_t checked;         // pages checked, before a rewrite or by the sweep
  uint64_t sweeps;          // complete sweeps over all filled pages
  uint64_t bad;             // pages found with a wrong content (each is repaired when it is found)
  uint64_t first_bad_page;  // index of the filled page, 0 is at TESTGUEST_FILL_START
  uint64_t first_bad_word;  // the first wrong 32-bit word in it
  uint64_t first_bad_expected;
  uint64_t first_bad_found;
  uint64_t first_bad_generation;        // the generation that the guest remembered
  uint64_t first_bad_stamp_page;        // what the page itself says that it is: word 0
  uint64_t first_bad_stamp_generation;  // and of which generation: word 1
  uint64_t first_bad_tick;
  uint64_t max_gap_us;  // longest time between two ticks by the guest's own clock, while running
  uint64_t uptime_us;   // by the guest's own clock, which stands still while the guest is paused
};

// The parameters as the guest understood them; written once, before state running.
struct TestGuestParameters {
  uint64_t tsc_khz;
  uint64_t fill_pages;
  uint64_t wss_pages;
  uint64_t rate;
  uint64_t check_rate;
  uint64_t tick_us;
  uint64_t tick_port;  // the I/O port, 0 for none
  uint64_t pattern;    // 0 uniform, 1 sequential, 2 hot
  uint64_t zero_pct;
  uint64_t halt;  // 1: halts when it has nothing to do
};

struct TestGuestMailbox {
  uint64_t magic;  // written last: the rest is valid once it is there
  uint32_t version;
  uint32_t size;  // of this struct, in bytes
  uint32_t publication;
  uint32_t reserved;
  struct TestGuestParameters parameters;
  struct TestGuestCounters counters[2];
};

// The content of a filled page, so that a host tool can recompute it too: word 0 is the page index,
// word 1 the generation (never 0), the last word (1023) the complement of the page index, and all
// words between are the seed. A page whose remembered generation has TESTGUEST_ZERO_MARK is all
// zeros.
static inline uint32_t TestGuestSeed(uint32_t page, uint32_t generation) {
  uint32_t seed = page * 0x85ebca6bu ^ generation * 0xc2b2ae35u;
  seed ^= seed >> 15;
  return seed * 0x2c1b3c6du + 0x297a2d39u;
}
