// While one is there, this process can open nothing (RLIMIT_NOFILE of 0).
#pragma once

#include <sys/resource.h>

#include <cstdlib>
#include <system_error>

namespace ramferry {

class NoDescriptors {
 public:
  NoDescriptors() {
    // UBSan opens a pipe to look at an object whose class it has not met; let it meet this one now.
    static_cast<void>(std::generic_category().message(0));
    if (::getrlimit(RLIMIT_NOFILE, &before_) != 0) std::abort();
    const rlimit none{.rlim_cur = 0, .rlim_max = before_.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &none) != 0) std::abort();
  }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

}  // namespace ramferry
