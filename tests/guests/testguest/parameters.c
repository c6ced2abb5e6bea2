#include "parameters.h"

struct Choice {
  const char* name;
  uint32_t value;
};

static const struct Choice kPatterns[] = {
    {"uniform", kUniform}, {"sequential", kSequential}, {"hot", kHot}, {0, 0}};
static const struct Choice kPorts[] = {{"serial", 0x3f8}, {"debugcon", 0xe9}, {"none", 0}, {0, 0}};
static const struct Choice kIdle[] = {{"spin", 0}, {"halt", 1}, {0, 0}};

struct Parameter {
  const char* name;
  uint32_t* value;
  uint32_t low;
  uint32_t high;
  const struct Choice* choices;  // or null for a number
};

static int IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n';
}

// Whether the word at `text` is `name`, ended by `end` or by the end of the word.
static int Matches(const char* text, const char* name, char end) {
  while (*name != 0 && *text == *name) ++text, ++name;
  return *name == 0 && (*text == end || (end == 0 && IsSpace(*text)));
}

static int ParseValue(const char* text, const struct Parameter* parameter) {
  if (parameter->choices != 0) {
    for (const struct Choice* choice = parameter->choices; choice->name != 0; ++choice) {
      if (!Matches(text, choice->name, 0)) continue;
      *parameter->value = choice->value;
      return 1;
    }
    return 0;
  }
  uint64_t number = 0;
  if (*text == 0 || IsSpace(*text)) return 0;
  for (; *text != 0 && !IsSpace(*text); ++text) {
    if (*text < '0' || *text > '9') return 0;
    number = number * 10 + (uint32_t)(*text - '0');
    if (number > parameter->high) return 0;
  }
  if (number < parameter->low) return 0;
  *parameter->value = (uint32_t)number;
  return 1;
}

int ParseParameters(const char* line, struct Parameters* p) {
  const struct Parameters defaults = {64, 16, 1000, 0, kUniform, 0, 1000, 0x3f8, 0, 0, 0};
  *p = defaults;
  const struct Parameter known[] = {
      {"fill_mib", &p->fill_mib, 1, 4000, 0},    {"wss_mib", &p->wss_mib, 1, 4000, 0},
      {"rate", &p->rate, 0, 100000000, 0},       {"check_rate", &p->check_rate, 0, 100000000, 0},
      {"pattern", &p->pattern, 0, 0, kPatterns}, {"zero_pct", &p->zero_pct, 0, 100, 0},
      {"tick_us", &p->tick_us, 100, 1000000, 0}, {"tick_port", &p->tick_port, 0, 0, kPorts},
      {"tsc_khz", &p->tsc_khz, 0, 100000000, 0}, {"idle", &p->halt, 0, 0, kIdle},
      {"burst_ms", &p->burst_ms, 0, 60000, 0},
  };
  while (*line != 0) {
    while (IsSpace(*line)) ++line;
    const char* equals = line;
    while (*equals != 0 && *equals != '=' && !IsSpace(*equals)) ++equals;
    if (*equals == '=') {
      unsigned i = 0;
      while (i < sizeof(known) / sizeof(known[0]) && !Matches(line, known[i].name, '=')) ++i;
      if (i == sizeof(known) / sizeof(known[0]) || !ParseValue(equals + 1, &known[i])) return 0;
    }
    while (*equals != 0 && !IsSpace(*equals)) ++equals;
    line = equals;
  }
  return p->wss_mib <= p->fill_mib;
}
