// Kernel interfaces newer than Debian 12's headers (Linux 6.1): declared here as the kernel
// documents them, under names of our own so that newer headers do not collide.
//
// PAGEMAP_SCAN: Linux 6.7, Documentation/admin-guide/mm/pagemap.rst.
// UFFD_FEATURE_WP_*: Documentation/admin-guide/mm/userfaultfd.rst.
#pragma once

#include <linux/ioctl.h>

#include <cstdint>

namespace ramferry::kernel {

struct PageRegion {  // struct page_region
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};

struct PagemapScanArg {  // struct pm_scan_arg
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};

inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScanArg);
inline constexpr uint64_t kScanWriteProtectMatching = 1 << 0;  // PM_SCAN_WP_MATCHING
inline constexpr uint64_t kScanCheckAsync = 1 << 1;            // PM_SCAN_CHECK_WPASYNC
inline constexpr uint64_t kPageIsWritten = 1 << 1;             // PAGE_IS_WRITTEN

inline constexpr uint64_t kFeatureWpHugetlbfsShmem = 1 << 12;
inline constexpr uint64_t kFeatureWpUnpopulated = 1 << 13;
inline constexpr uint64_t kFeatureWpAsync = 1 << 15;

}  // namespace ramferry::kernel
