#include "engine/image_digest.h"

#include <openssl/evp.h>

#include <memory>

#include "engine/zero_scan.h"

namespace ramferry {

absl::StatusOr<std::string> DigestSlice(const MappedRegion& region, const PageRuns& populated) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  bool good = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  for (const PageRun& run : populated) {
    for (uint64_t page = run.first; page < run.end() && good; ++page) {
      const std::byte* bytes = region.address + (page << kPageShift);
      if (IsZeroPage(bytes)) continue;
      good = EVP_DigestUpdate(context.get(), &page, sizeof page) == 1 &&
             EVP_DigestUpdate(context.get(), bytes, kPageBytes) == 1;
    }
  }
  std::string digest(32, '\0');
  unsigned length = 0;
  if (!good || EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(digest.data()),
                                  &length) != 1) {
    return absl::InternalError("OpenSSL cannot compute SHA-256");
  }
  return digest;
}

}  // namespace ramferry
