#include "engine/report.h"

namespace ramferry {

const char* NameOf(Outcome outcome) {
  switch (outcome) {
    case Outcome::kMigrated:
      return "migrated";
    case Outcome::kRolledBack:
      return "rolled-back";
    case Outcome::kInDoubt:
      return "in-doubt";
  }
  return "";
}

}  // namespace ramferry
