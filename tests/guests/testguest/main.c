// The test guest: fills memory with pages that it can recompute, rewrites a working set at a set
// rate, and checks every page all the time, so that a lost, torn, stale or doubled page shows
// inside the guest. Parameters: parameters.h. Results: mailbox.h. One CPU works; others stay where
// the firmware left them.
#include "mailbox.h"
#include "parameters.h"
#include "platform.h"

#define PAGE_WORDS 1024u

// Fixed places below TESTGUEST_FILL_START. The program itself lies at 1 MiB.
static struct TestGuestMailbox* const mailbox = (struct TestGuestMailbox*)TESTGUEST_MAILBOX_ADDRESS;
static uint32_t* const generations = (uint32_t*)0x400000u;  // one per filled page; up to 4 MiB

static struct Parameters parameters;
static struct TestGuestCounters counters;
static uint32_t fill_pages;
static uint32_t wss_pages;
static uint32_t tsc_khz;
static uint64_t start_tsc;
static uint64_t last_tick_tsc;
static uint64_t next_tick_tsc;
static uint64_t tick_interval;
static uint32_t random_state = 2463534242u;

static uint32_t Random(void) {  // xorshift32 (Marsaglia 2003)
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

static uint32_t RandomBelow(uint32_t limit) {
  return (uint32_t)((uint64_t)Random() * limit >> 32);
}

static void Publish(void) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  volatile uint32_t* to = (volatile uint32_t*)&mailbox->counters[(mailbox->publication + 1) % 2];
  const uint32_t* from = (const uint32_t*)&counters;
  for (uint32_t i = 0; i < sizeof(counters) / 4; ++i) to[i] = from[i];
  __atomic_store_n(&mailbox->publication, mailbox->publication + 1, __ATOMIC_RELEASE);
}

static void OpenMailbox(void) {
  mailbox->version = TESTGUEST_MAILBOX_VERSION;
  mailbox->size = sizeof(*mailbox);
  mailbox->publication = 0;
  struct TestGuestParameters* p = &mailbox->parameters;
  p->tsc_khz = tsc_khz;
  p->fill_pages = fill_pages;
  p->wss_pages = wss_pages;
  p->rate = parameters.rate;
  p->check_rate = parameters.check_rate;
  p->tick_us = parameters.tick_us;
  p->tick_port = parameters.tick_port;
  p->pattern = parameters.pattern;
  p->zero_pct = parameters.zero_pct;
  p->halt = parameters.halt;
  Publish();
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  *(volatile uint64_t*)&mailbox->magic = TESTGUEST_MAILBOX_MAGIC;
}

// The observer on the host sees a tick as a byte with the top bit set and the low bits of the
// tick's number in the others: so it can tell ticks from text, and a lost or doubled tick from a
// whole sequence.
static void TickIfDue(uint64_t now) {
  // A halted CPU wakes once an interval, not exactly when the tick is due: a little early is on
  // time.
  if (now + tick_interval / 4 < next_tick_tsc) return;
  ++counters.ticks;
  if (parameters.tick_port != 0) {
    OutByte((uint16_t)parameters.tick_port, (uint8_t)(0x80 | (counters.ticks & 0x7f)));
  }
  uint64_t gap_us = Divide((now - last_tick_tsc) * 1000, tsc_khz);
  if (counters.state == TESTGUEST_STATE_RUNNING && gap_us > counters.max_gap_us) {
    counters.max_gap_us = gap_us;
  }
  counters.uptime_us = Divide((now - start_tsc) * 1000, tsc_khz);
  last_tick_tsc = now;
  next_tick_tsc += tick_interval;
  if (next_tick_tsc <= now) next_tick_tsc = now + tick_interval;  // missed ones are not made up for
  Publish();
}

static uint32_t* PageAddress(uint32_t page) {
  return (uint32_t*)(TESTGUEST_FILL_START + page * PAGE_WORDS * 4);
}

// String instructions for the body of a page: the fastest that there is on hardware, and a single
// instruction where the hypervisor emulates each one.
static void WritePage(uint32_t page, uint32_t remembered) {
  uint32_t* words = PageAddress(page);
  int zero = (remembered & TESTGUEST_ZERO_MARK) != 0;
  uint32_t value = zero ? 0 : TestGuestSeed(page, remembered);
  uint32_t* to = words;
  uint32_t count = PAGE_WORDS;
  __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  if (zero) return;
  words[0] = page;
  words[1] = remembered;
  words[PAGE_WORDS - 1] = ~page;
}

// Compares `count` words with `value`; returns the first that differs, or `words + count`.
static const uint32_t* FindOther(const uint32_t* words, uint32_t count, uint32_t value) {
  uint8_t differs;
  __asm__ volatile("repe scasl\n\tsetne %2"
                   : "+D"(words), "+c"(count), "=q"(differs)
                   : "a"(value)
                   : "memory", "cc");
  return differs ? words - 1 : words;
}

static void ReportBad(uint32_t page, uint32_t word, uint32_t expected, uint32_t found) {
  const volatile uint32_t* words = PageAddress(page);
  if (counters.bad++ == 0) {
    counters.first_bad_page = page;
    counters.first_bad_word = word;
    counters.first_bad_expected = expected;
    counters.first_bad_found = found;
    counters.first_bad_generation = generations[page];
    counters.first_bad_stamp_page = words[0];
    counters.first_bad_stamp_generation = words[1];
    counters.first_bad_tick = counters.ticks;
  }
  WritePage(page, generations[page]);  // repaired, so that one bad page counts once
}

// Every word of the page against what the guest remembers to have written there.
static void CheckPage(uint32_t page) {
  const uint32_t* words = PageAddress(page);
  uint32_t remembered = generations[page];
  __atomic_signal_fence(__ATOMIC_SEQ_CST);  // read memory anew: somebody else may have changed it
  ++counters.checked;
  if (remembered & TESTGUEST_ZERO_MARK) {
    const uint32_t* other = FindOther(words, PAGE_WORDS, 0);
    if (other != words + PAGE_WORDS) ReportBad(page, (uint32_t)(other - words), 0, *other);
    return;
  }
  if (words[0] != page) {
    ReportBad(page, 0, page, words[0]);
  } else if (words[1] != remembered) {
    ReportBad(page, 1, remembered, words[1]);
  } else if (words[PAGE_WORDS - 1] != ~page) {
    ReportBad(page, PAGE_WORDS - 1, ~page, words[PAGE_WORDS - 1]);
  } else {
    uint32_t value = TestGuestSeed(page, remembered);
    const uint32_t* other = FindOther(words + 2, PAGE_WORDS - 3, value);
    if (other != words + PAGE_WORDS - 1) {
      ReportBad(page, (uint32_t)(other - words), value, *other);
    }
  }
}

static uint32_t NextPageToRewrite(void) {
  static uint32_t next = 0;
  switch (parameters.pattern) {
    case kSequential:
      next = next + 1 < wss_pages ? next + 1 : 0;
      return next;
    case kHot:
      if (Random() & 0x700) return RandomBelow((wss_pages + 15) / 16);
      return RandomBelow(wss_pages);
    default:
      return RandomBelow(wss_pages);
  }
}

static void RewriteOnePage(void) {
  uint32_t page = NextPageToRewrite();
  CheckPage(page);
  uint32_t generation = (generations[page] + 1) & ~TESTGUEST_ZERO_MARK;
  if (generation == 0) generation = 1;
  if (RandomBelow(100) < parameters.zero_pct) {
    generation |= TESTGUEST_ZERO_MARK;
    ++counters.work_zeroed;
  }
  generations[page] = generation;
  WritePage(page, generation);
  ++counters.work;
}

static void SweepOnePage(void) {
  static uint32_t next = 0;
  CheckPage(next);
  if (++next == fill_pages) {
    next = 0;
    ++counters.sweeps;
  }
}

static void Fill(void) {
  counters.state = TESTGUEST_STATE_FILLING;
  for (uint32_t page = 0; page < fill_pages; ++page) {
    generations[page] = 1;
    WritePage(page, 1);
    ++counters.filled_pages;
    TickIfDue(ReadTsc());
  }
}

// Work that is due `rate` times a second; 0 is always due.
struct Pace {
  uint64_t interval;  // in TSC cycles
  uint64_t next;
};

static struct Pace StartPace(uint32_t rate) {
  struct Pace pace = {rate != 0 ? Divide((uint64_t)tsc_khz * 1000, rate) : 0, ReadTsc()};
  return pace;
}

static int IsDue(struct Pace* pace, uint64_t now) {
  const uint64_t kMostBehind = (uint64_t)tsc_khz * 100;  // 100 ms: no burst after a long halt
  if (now < pace->next) return 0;
  if (now - pace->next > kMostBehind) pace->next = now - kMostBehind;
  return 1;
}

static int InBurst(uint64_t now) {
  static int inside = 1;
  static uint64_t until = 0;
  if (parameters.burst_ms == 0) return 1;
  if (until == 0) until = now + (uint64_t)tsc_khz * parameters.burst_ms;
  if (now >= until) {
    inside = !inside;
    until = now + (uint64_t)tsc_khz * parameters.burst_ms;
  }
  return inside;
}

static void Run(void) {
  struct Pace rewrite = StartPace(parameters.rate);
  struct Pace check = StartPace(parameters.check_rate);
  if (parameters.halt) StartTimer(parameters.tick_us < 54000 ? parameters.tick_us : 54000);
  counters.state = TESTGUEST_STATE_RUNNING;
  for (uint32_t turn = 0;; ++turn) {
    uint64_t now = ReadTsc();
    TickIfDue(now);
    int rewrite_due = InBurst(now) && IsDue(&rewrite, now);
    int check_due = IsDue(&check, now);
    if (rewrite_due && !(check_due && turn % 8 == 0)) {  // neither starves the other
      rewrite.next += rewrite.interval;
      RewriteOnePage();
    } else if (check_due) {
      check.next += check.interval;
      SweepOnePage();
    } else if (parameters.halt) {
      Halt();
    }
  }
}

static void Print(const char* text) {
  for (; *text != 0; ++text) OutByte(0x3f8, (uint8_t)*text);
}

void TestGuestMain(const struct StartInfo* info);

void TestGuestMain(const struct StartInfo* info) {
  const char* line = "";
  if (info->magic == START_INFO_MAGIC && info->command_line != 0) {
    line = (const char*)(uint32_t)info->command_line;
  }
  int understood = ParseParameters(line, &parameters);
  uint64_t end_of_ram = EndOfRam(info, TESTGUEST_FILL_START);
  // From here on the start info may be overwritten.
  fill_pages = parameters.fill_mib * 256;
  wss_pages = parameters.wss_mib * 256;
  tsc_khz = parameters.tsc_khz != 0 ? parameters.tsc_khz : MeasureTscKhz();
  if (tsc_khz == 0) tsc_khz = 1000000;  // wrong ticks are better than none
  tick_interval = Divide((uint64_t)parameters.tick_us * tsc_khz, 1000);
  start_tsc = last_tick_tsc = ReadTsc();
  next_tick_tsc = start_tsc + tick_interval;

  StartSerial();
  Print("ramferry testguest\n");
  uint64_t fill_end = TESTGUEST_FILL_START + ((uint64_t)parameters.fill_mib << 20);
  if (!understood) {
    counters.refusal = TESTGUEST_REFUSAL_BAD_PARAMETER;
  } else if (end_of_ram != 0 && fill_end > end_of_ram) {
    counters.refusal = TESTGUEST_REFUSAL_FILL_TOO_LARGE;
  }
  if (counters.refusal != TESTGUEST_REFUSAL_NONE) counters.state = TESTGUEST_STATE_REFUSED;
  OpenMailbox();
  if (counters.refusal != TESTGUEST_REFUSAL_NONE) {
    Print("refused: see the mailbox\n");
    return;
  }
  Fill();
  Run();
}
