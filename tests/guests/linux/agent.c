// What runs inside the Linux guest: UDP ticks, TCP services, and memory and disk load that checks
// itself. Static, one thread for each concern. Parameters come from the kernel command line, as
// rf.NAME=VALUE:
//
//   rf.ticks=A.B.C.D:PORT  where ticks go; none without it
//   rf.tick_ms=5           time between ticks
//   rf.mem_mib=0           memory that is filled, and rewritten all the time
//   rf.mem_rate=0          pages rewritten a second; 0: as many as it can
//   rf.disk=/dev/vda       a disk of blocks as below, read with O_DIRECT all the time; none without
//   it
//
// TCP port 7 sends back what it gets. Port 19 sends a little-endian 64-bit number every tick_ms: 0,
// 1, 2, ... A disk block of 4096 bytes holds 512 times the 64-bit number (block number + 1) *
// kStride.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kPage = 4096, kPageWords = kPage / 8, kChunk = 65536, kDiskThreads = 4, kRingChunks = 64 };
static const uint64_t kStride = 0x9e3779b97f4a7c15ull;

// One tick, little-endian; linux_guest.py knows this layout.
struct Tick {
  char magic[8];  // "RFTICK01"
  uint64_t number;
  uint64_t uptime_ns;
  uint64_t memory_work;  // pages rewritten
  uint64_t memory_bad;
  uint64_t disk_reads;            // requests of kChunk bytes
  uint64_t disk_bad;              // blocks
  uint64_t disk_first_bad_block;  // all bits set: none
};

static char command_line[4096];
static long tick_ms;
static _Atomic uint64_t memory_work, memory_bad, disk_reads, disk_bad;
static _Atomic uint64_t disk_first_bad_block = UINT64_MAX;  // none

// The value of rf.NAME, or `otherwise`. Not freed: the parameters live as long as the program.
static const char* Parameter(const char* name, const char* otherwise) {
  char pattern[64];
  snprintf(pattern, sizeof(pattern), " rf.%s=", name);
  const char* found = strstr(command_line, pattern);
  if (!found) return otherwise;
  found += strlen(pattern);
  return strndup(found, strcspn(found, " \n"));
}

static uint64_t NowNs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Sleeps until `*next`, then sets it one period on. After a long halt it does not catch up.
static void Pace(struct timespec* next, long period_ms) {
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL);
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (now.tv_sec > next->tv_sec + 1) *next = now;
  next->tv_nsec += period_ms * 1000000;
  while (next->tv_nsec >= 1000000000) {
    next->tv_nsec -= 1000000000;
    ++next->tv_sec;
  }
}

static void Die(const char* what) {
  fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void* SendTicks(void* argument) {
  char* place = strdup(argument);
  char* port = strchr(place, ':');
  if (!port) Die("rf.ticks needs ADDRESS:PORT");
  *port++ = 0;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  inet_aton(place, &to.sin_addr);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct Tick tick = {.magic = "RFTICK01"};
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (;; ++tick.number) {
    tick.uptime_ns = NowNs();
    tick.memory_work = memory_work;
    tick.memory_bad = memory_bad;
    tick.disk_reads = disk_reads;
    tick.disk_bad = disk_bad;
    tick.disk_first_bad_block = disk_first_bad_block;
    sendto(fd, &tick, sizeof(tick), MSG_DONTWAIT, (struct sockaddr*)&to, sizeof(to));
    Pace(&next, tick_ms);
  }
  return NULL;
}

static int SendAll(int fd, const void* data, size_t length) {
  for (const char* from = data; length > 0;) {
    ssize_t sent = send(fd, from, length, MSG_NOSIGNAL);
    if (sent <= 0) return 0;
    from += sent;
    length -= (size_t)sent;
  }
  return 1;
}

static void* Echo(void* argument) {
  int fd = (int)(intptr_t)argument;
  char buffer[4096];
  ssize_t got;
  while ((got = recv(fd, buffer, sizeof(buffer), 0)) > 0 && SendAll(fd, buffer, (size_t)got)) {
  }
  close(fd);
  return NULL;
}

static void* Count(void* argument) {
  int fd = (int)(intptr_t)argument;
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (uint64_t number = 0; SendAll(fd, &number, sizeof(number)); ++number) Pace(&next, tick_ms);
  close(fd);
  return NULL;
}

static void StartThread(void* (*run)(void*), void* argument) {
  pthread_t thread;
  if ((errno = pthread_create(&thread, NULL, run, argument)) != 0) Die("pthread_create");
  pthread_detach(thread);
}

struct Service {
  uint16_t port;
  void* (*run)(void*);
};

static void* Serve(void* argument) {
  const struct Service* service = argument;
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(service->port)};
  if (bind(fd, (struct sockaddr*)&here, sizeof(here)) != 0 || listen(fd, 16) != 0) Die("listen");
  for (;;) {
    int connection = accept(fd, NULL, NULL);
    if (connection < 0) continue;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    StartThread(service->run, (void*)(intptr_t)connection);
  }
  return NULL;
}

static void FillPage(uint64_t* page, uint64_t value) {
  for (int i = 0; i < kPageWords; ++i) page[i] = value;
}

static int IsPage(const uint64_t* page, uint64_t value) {
  for (int i = 0; i < kPageWords; ++i) {
    if (((const volatile uint64_t*)page)[i] != value) return 0;
  }
  return 1;
}

// Goes round the memory: checks a page against its remembered generation, then writes the next one.
static void* RewriteMemory(void* argument) {
  uint64_t pages = (uint64_t)(uintptr_t)argument * 256;
  long rate = atol(Parameter("mem_rate", "0"));
  char* memory =
      mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint64_t* generations = calloc(pages, sizeof(*generations));
  if (memory == MAP_FAILED || !generations) Die("not so much memory");
  for (uint64_t i = 0; i < pages; ++i) {
    FillPage((uint64_t*)(memory + i * kPage), (i + 1) * kStride + (generations[i] = 1));
  }
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  const long kPeriodMs = 5;
  long owed = 0;  // in thousandths of a page
  for (uint64_t i = 0;; i = (i + 1) % pages) {
    if (rate > 0) {
      while (owed < 1000) {
        Pace(&next, kPeriodMs);
        owed += rate * kPeriodMs;
      }
      owed -= 1000;
    }
    uint64_t* page = (uint64_t*)(memory + i * kPage);
    if (!IsPage(page, (i + 1) * kStride + generations[i])) ++memory_bad;
    FillPage(page, (i + 1) * kStride + ++generations[i]);
    ++memory_work;
  }
  return NULL;
}

static void CheckChunk(const char* chunk, uint64_t offset) {
  for (uint64_t block = offset / kPage; block < (offset + kChunk) / kPage;
       ++block, chunk += kPage) {
    if (IsPage((const uint64_t*)chunk, (block + 1) * kStride)) continue;
    // The block comes before the count: a tick that counts a bad block also names it.
    uint64_t none = UINT64_MAX;
    atomic_compare_exchange_strong(&disk_first_bad_block, &none, block);
    ++disk_bad;
  }
}

// Reads the disk into a ring of buffers that no CPU ever writes, so that a read which lands behind
// the back of dirty tracking is not hidden by a later write. A chunk is checked when it has come,
// and again just before its place is used for another: a stale page in it shows then at the latest.
static void* ReadDisk(void* argument) {
  static _Atomic uint64_t next_chunk;
  int fd = open(argument, O_RDONLY | O_DIRECT);
  if (fd < 0) Die(argument);
  uint64_t chunks = (uint64_t)lseek(fd, 0, SEEK_END) / kChunk;
  char* ring = mmap(NULL, (size_t)kRingChunks * kChunk, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  uint64_t offsets[kRingChunks];
  memset(offsets, 0xff, sizeof(offsets));
  if (ring == MAP_FAILED || chunks == 0) Die("disk buffers");
  for (int place = 0;; place = (place + 1) % kRingChunks) {
    char* chunk = ring + (size_t)place * kChunk;
    if (offsets[place] != UINT64_MAX) CheckChunk(chunk, offsets[place]);
    offsets[place] = next_chunk++ % chunks * kChunk;
    if (pread(fd, chunk, kChunk, (off_t)offsets[place]) != kChunk) Die("disk read");
    ++disk_reads;
    CheckChunk(chunk, offsets[place]);
  }
  return NULL;
}

int main(void) {
  static const struct Service kEcho = {7, Echo}, kCounter = {19, Count};
  signal(SIGPIPE, SIG_IGN);
  int fd = open("/proc/cmdline", O_RDONLY);
  command_line[0] = ' ';
  if (fd < 0 || read(fd, command_line + 1, sizeof(command_line) - 2) < 0) Die("/proc/cmdline");
  close(fd);
  tick_ms = atol(Parameter("tick_ms", "5"));
  if (tick_ms < 1) tick_ms = 1;
  const char* ticks = Parameter("ticks", NULL);
  const char* disk = Parameter("disk", NULL);
  long mem_mib = atol(Parameter("mem_mib", "0"));
  StartThread(Serve, (void*)&kEcho);
  StartThread(Serve, (void*)&kCounter);
  if (mem_mib > 0) StartThread(RewriteMemory, (void*)(uintptr_t)mem_mib);
  for (int i = 0; disk && i < kDiskThreads; ++i) StartThread(ReadDisk, (void*)disk);
  if (ticks) StartThread(SendTicks, (void*)ticks);
  puts("agent: running");
  fflush(stdout);
  for (;;) pause();
}
