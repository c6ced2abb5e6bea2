#include "transport/tcp/token_registry.h"

#include <utility>

namespace ramferry::tcp {

std::vector<std::string> TokenRegistry::Issue(const std::shared_ptr<TokenHolder>& holder,
                                              size_t count) {
  std::vector<std::string> tokens;
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < count; ++i) {
    tokens.push_back(NewToken());
    entries_.push_back({tokens.back(), i, holder.get(), holder});
  }
  return tokens;
}

std::optional<TokenRegistry::Match> TokenRegistry::Take(const Prover& prover, const Key& proof) {
  const std::lock_guard lock(mutex_);
  size_t found = entries_.size();
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (Equal(prover.SourceProof(entries_[i].token), proof)) found = i;
  }
  if (found == entries_.size()) return std::nullopt;
  Match match{.holder = entries_[found].holder.lock(),
              .index = entries_[found].index,
              .destination_proof = prover.DestinationProof(entries_[found].token)};
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(found));
  if (match.holder == nullptr) return std::nullopt;
  return match;
}

void TokenRegistry::Withdraw(const TokenHolder* holder) {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [holder](const Entry& entry) { return entry.key == holder; });
}

}  // namespace ramferry::tcp
