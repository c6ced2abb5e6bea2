// The tokens a listener has given out and not yet seen, and whose they are. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "transport/tcp/byte_stream.h"
#include "transport/tcp/handshake.h"

namespace ramferry::tcp {

// Who gave a token out: takes the connection that came with it.
class TokenHolder {
 public:
  virtual ~TokenHolder() = default;
  // `peer` names the connection in messages; `index` is that of its token.
  virtual void Deliver(std::unique_ptr<ByteStream> stream, const std::string& peer,
                       size_t index) = 0;
};

class TokenRegistry {
 public:
  struct Match {
    std::shared_ptr<TokenHolder> holder;
    size_t index = 0;  // of the token, as Issue gave them out
    Key destination_proof{};
  };

  // New tokens that lead to `holder`.
  [[nodiscard]] std::vector<std::string> Issue(const std::shared_ptr<TokenHolder>& holder,
                                               size_t count);

  // The holder of the token that `proof` proves in this session. The token is used up by it. Takes
  // as long whether and wherever there is a match.
  [[nodiscard]] std::optional<Match> Take(const Prover& prover, const Key& proof);

  // Forgets what leads to `holder`.
  void Withdraw(const TokenHolder* holder);

 private:
  struct Entry {
    std::string token;
    size_t index;
    const TokenHolder* key;
    std::weak_ptr<TokenHolder> holder;
  };
  std::mutex mutex_;
  std::vector<Entry> entries_;  // guarded by mutex_
};

}  // namespace ramferry::tcp
