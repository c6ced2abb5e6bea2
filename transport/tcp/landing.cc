#include "transport/tcp/landing.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>

#include <cerrno>
#include <cstring>

#include "base/populate.h"
#include "base/status.h"
#include "base/units.h"

namespace ramferry::tcp {
namespace {

bool IsZero(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageBytes - 1) == 0;
}

absl::Status NoMemory(const MappedRegion& region, uint64_t offset) {
  return absl::ResourceExhaustedError(
      fmt::format("no memory for guest memory {} at offset {} on the destination: make its file "
                  "system larger or free memory on that host",
                  region.description.name, offset));
}

// Huge pages may run out, even between a read and the next.
absl::Status PopulateFile(const MappedRegion& region, uint64_t offset, uint64_t length) {
  if (region.fd < 0 || length == 0) return absl::OkStatus();
  const absl::Status status = Populate(region.address + offset, length);
  return absl::IsResourceExhausted(status) ? NoMemory(region, offset) : status;
}

// Pages that are zero already are only read: untouched private memory then stays untouched.
absl::Status ZeroInPlace(const MappedRegion& region, uint64_t offset, uint64_t length) {
  RETURN_IF_ERROR(PopulateFile(region, offset, length));
  for (std::byte* page = region.address + offset; length != 0;
       page += kPageBytes, length -= kPageBytes) {
    if (!IsZero(page)) std::memset(page, 0, kPageBytes);
  }
  return absl::OkStatus();
}

absl::Status LandingError(int error, const MappedRegion& region, uint64_t offset) {
  if (error == ENOSPC || error == ENOMEM || error == EDQUOT) {
    return NoMemory(region, offset);
  }
  return ErrnoStatus(error, fmt::format("cannot write guest memory {} at offset {}",
                                        region.description.name, offset));
}

}  // namespace

Landing::Landing(std::span<const MappedRegion> regions) : regions_(regions) {
  pieces_.reserve(IOV_MAX);
}

absl::Status Landing::Write(RegionId region, uint64_t offset, std::span<const std::byte> bytes) {
  const MappedRegion& target = regions_[region];
  if (!target.can_pwrite()) {
    const uint64_t begin = offset & ~(kPageBytes - 1);
    const uint64_t end = (offset + bytes.size() + kPageBytes - 1) & ~(kPageBytes - 1);
    RETURN_IF_ERROR(PopulateFile(target, begin, end - begin));
    std::memcpy(target.address + offset, bytes.data(), bytes.size());
    return absl::OkStatus();
  }
  const bool adjoins = !pieces_.empty() && region == region_ && offset == end_;
  if (!adjoins || pieces_.size() == IOV_MAX) {
    RETURN_IF_ERROR(Settle());
    region_ = region;
    begin_ = offset;
  }
  pieces_.push_back({const_cast<std::byte*>(bytes.data()), bytes.size()});
  end_ = offset + bytes.size();
  return absl::OkStatus();
}

absl::Status Landing::WriteFromPipe(RegionId region, uint64_t offset, int pipe, uint64_t length) {
  RETURN_IF_ERROR(Settle());
  const MappedRegion& target = regions_[region];
  auto position = static_cast<off_t>(offset);
  while (length > 0) {
    const ssize_t written = ::splice(pipe, nullptr, target.fd, &position, length, SPLICE_F_MOVE);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      return LandingError(written == 0 ? ENOSPC : errno, target,
                          static_cast<uint64_t>(position) & ~(kPageBytes - 1));
    }
    length -= static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status Landing::Settle() {
  std::span<iovec> rest(pieces_);
  while (!rest.empty()) {
    const MappedRegion& region = regions_[region_];
    ssize_t written = ::pwritev(region.fd, rest.data(), static_cast<int>(rest.size()),
                                static_cast<off_t>(begin_));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      pieces_.clear();
      return LandingError(written == 0 ? ENOSPC : errno, region, begin_);
    }
    begin_ += static_cast<uint64_t>(written);
    while (!rest.empty() && static_cast<size_t>(written) >= rest.front().iov_len) {
      written -= static_cast<ssize_t>(rest.front().iov_len);
      rest = rest.subspan(1);
    }
    if (written > 0) {  // a signal or a full file system came in between: the next call will tell
      rest.front().iov_base = static_cast<std::byte*>(rest.front().iov_base) + written;
      rest.front().iov_len -= static_cast<size_t>(written);
    }
  }
  pieces_.clear();
  return absl::OkStatus();
}

absl::Status Landing::Zero(RegionId region, uint64_t offset, uint64_t length) {
  RETURN_IF_ERROR(Settle());
  const MappedRegion& target = regions_[region];
  if (target.fd < 0) return ZeroInPlace(target, offset, length);
  // Only whole pages of the file can be given back; what is left of huge pages is cleared.
  const uint64_t unit = target.description.backing_page_size.value();
  const uint64_t end = offset + length;
  const uint64_t hole_begin = (offset + unit - 1) / unit * unit;
  const uint64_t hole_end = end / unit * unit;
  if (hole_begin >= hole_end) return ZeroInPlace(target, offset, length);
  while (::fallocate(target.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(hole_begin),
                     static_cast<off_t>(hole_end - hole_begin)) != 0) {
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP) return ZeroInPlace(target, offset, length);
    return LandingError(errno, target, offset);
  }
  RETURN_IF_ERROR(ZeroInPlace(target, offset, hole_begin - offset));
  return ZeroInPlace(target, hole_end, end - hole_end);
}

}  // namespace ramferry::tcp
