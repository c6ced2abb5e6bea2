// What a person sees while a migration goes on: a live line on a terminal, log lines elsewhere.
#pragma once

#include <atomic>
#include <string>

#include "engine/observer.h"

namespace ramferry {

class ProgressDisplay : public MigrationObserver {
 public:
  ProgressDisplay();
  ~ProgressDisplay() override;

  void OnStage(Stage stage) override;
  void OnProgress(const RoundProgress& progress) override;
  void OnRound(const RoundReport& round) override;
  void OnNote(const std::string& note) override;

  [[nodiscard]] Stage stage() const { return stage_; }

 private:
  void Line(const std::string& text);  // replaces the live line, if there is one
  void Live(const std::string& text);

  bool terminal_;
  bool live_ = false;     // a live line is on the screen
  double logged_ms_ = 0;  // into the round: the last log line
  std::atomic<Stage> stage_{Stage::kPreMigration};
};

}  // namespace ramferry
