// Told how a migration gets on; called from the coordinating thread, never from workers.
#pragma once

#include <string>

#include "engine/report.h"
#include "engine/stage.h"

namespace ramferry {

class MigrationObserver {
 public:
  virtual ~MigrationObserver() = default;
  virtual void OnStage(Stage /*stage*/) {}
  // Several times a second while a round goes on.
  virtual void OnProgress(const RoundProgress& /*progress*/) {}
  virtual void OnRound(const RoundReport& /*round*/) {}
  // Worth a line for the person who watches.
  virtual void OnNote(const std::string& /*note*/) {}
};

}  // namespace ramferry
