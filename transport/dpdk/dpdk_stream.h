// A connection over the DPDK port as the byte stream that page channels are written on.
#pragma once

#include <memory>

#include "transport/dpdk/poller.h"
#include "transport/tcp/byte_stream.h"

namespace ramferry::dpdk {

// Keeps the poller as long as it lives.
[[nodiscard]] std::unique_ptr<tcp::ByteStream> StreamOver(std::shared_ptr<Poller> poller,
                                                          std::shared_ptr<Connection> connection);

}  // namespace ramferry::dpdk
