// Reads the asynchronous events of one RDMA device and passes them to the links they concern.
//
// librdmacm opens a device once a process, and an event goes to whoever reads it first: so there is
// one reader a device, as long as anybody has a link there. Thread-safe.
#pragma once

#include <infiniband/verbs.h>

#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "base/unique_fd.h"

namespace ramferry::rdma {

class CmLink;

class DeviceWatch {
 public:
  [[nodiscard]] static std::shared_ptr<DeviceWatch> Of(ibv_context* device);
  ~DeviceWatch();

  void Add(CmLink* link);
  void Remove(CmLink* link);  // afterwards the link gets nothing any more

 private:
  explicit DeviceWatch(ibv_context* device);
  void Run();
  void Deliver(const ibv_async_event& event);

  ibv_context* device_;
  UniqueFd stop_;
  std::mutex mutex_;
  std::set<CmLink*> links_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace ramferry::rdma
