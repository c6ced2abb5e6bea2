#include "hypervisor-glue/xen/domain_state.h"

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"

namespace ramferry {
namespace {

// The bodies of the records, as the specification lays them out (little-endian, as this machine).
struct TscInfo {
  uint32_t mode = 0;
  uint32_t khz = 0;
  uint64_t nanoseconds = 0;
  uint32_t incarnation = 0;
  uint32_t reserved = 0;
};

struct HvmParamsHead {
  uint32_t count = 0;
  uint32_t reserved = 0;
};

struct HvmParam {
  uint64_t index = 0;
  uint64_t value = 0;
};

// The parameters that belong to the guest; all others are the destination's own (event channels) or
// set by its toolstack.
constexpr std::array kGuestParams = {
    HVM_PARAM_STORE_PFN,
    HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_BUFIOREQ_PFN,
    HVM_PARAM_PAGING_RING_PFN,
    HVM_PARAM_MONITOR_RING_PFN,
    HVM_PARAM_SHARING_RING_PFN,
    HVM_PARAM_VM86_TSS_SIZED,
    HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_ACPI_IOPORTS_LOCATION,
    HVM_PARAM_VIRIDIAN,
    HVM_PARAM_IDENT_PT,
    HVM_PARAM_VM_GENERATION_ID_ADDR,
    HVM_PARAM_IOREQ_SERVER_PFN,
    HVM_PARAM_NR_IOREQ_SERVER_PAGES,
    HVM_PARAM_X87_FIP_WIDTH,
    HVM_PARAM_MCA_CAP,
};

template <class Entry>
std::string BytesOf(const std::vector<Entry>& entries, size_t count) {
  return {reinterpret_cast<const char*>(entries.data()), count * sizeof(Entry)};
}

}  // namespace

absl::Status ReadCpuPolicy(const XenControl& xen, const XenDomain& domain,
                           XenBlueprint& blueprint) {
  uint32_t leaves = 0;
  uint32_t msrs = 0;
  if (xc_cpu_policy_get_size(xen.xc(), &leaves, &msrs) < 0) {
    return XenControl::Error(domain, "Xen does not say how large CPU policies are");
  }
  const std::unique_ptr<xc_cpu_policy_t, decltype(&xc_cpu_policy_destroy)> policy(
      xc_cpu_policy_init(), &xc_cpu_policy_destroy);
  std::vector<xen_cpuid_leaf_t> leaf_list(leaves);
  std::vector<xen_msr_entry_t> msr_list(msrs);
  if (policy == nullptr || xc_cpu_policy_get_domain(xen.xc(), domain.id, policy.get()) != 0 ||
      xc_cpu_policy_serialise(xen.xc(), policy.get(), leaf_list.data(), &leaves, msr_list.data(),
                              &msrs) != 0) {
    return XenControl::Error(domain, "Xen does not say what CPU it sees");
  }
  blueprint.cpuid_policy = BytesOf(leaf_list, leaves);
  blueprint.msr_policy = BytesOf(msr_list, msrs);
  return absl::OkStatus();
}

absl::StatusOr<Bytes> SaveRecords(const XenControl& xen, const XenDomain& domain) {
  Bytes records;
  TscInfo tsc;
  if (xc_domain_get_tsc_info(xen.xc(), domain.id, &tsc.mode, &tsc.nanoseconds, &tsc.khz,
                             &tsc.incarnation) < 0) {
    return XenControl::Error(domain, "Xen does not tell its clock");
  }
  AppendRecord(XenRecord::kTscInfo, std::as_bytes(std::span(&tsc, 1)), records);

  HvmParamsHead head;
  std::vector<HvmParam> params;
  for (const int index : kGuestParams) {
    HvmParam param{.index = static_cast<uint64_t>(index)};
    if (xc_hvm_param_get(xen.xc(), domain.id, static_cast<uint32_t>(index), &param.value) != 0) {
      return XenControl::Error(domain, "Xen does not tell its parameters");
    }
    if (param.value != 0) params.push_back(param);
  }
  head.count = static_cast<uint32_t>(params.size());
  Bytes body;
  for (const auto part : {std::as_bytes(std::span(&head, 1)), std::as_bytes(std::span(params))}) {
    body.insert(body.end(), part.begin(), part.end());
  }
  AppendRecord(XenRecord::kHvmParams, body, records);

  const int size = xc_domain_hvm_getcontext(xen.xc(), domain.id, nullptr, 0);
  if (size <= 0) return XenControl::Error(domain, "Xen does not tell the state of its CPUs");
  std::vector<uint8_t> context(static_cast<size_t>(size));
  const int got =
      xc_domain_hvm_getcontext(xen.xc(), domain.id, context.data(), static_cast<uint32_t>(size));
  if (got <= 0) return XenControl::Error(domain, "Xen does not tell the state of its CPUs");
  context.resize(static_cast<size_t>(got));
  AppendRecord(XenRecord::kHvmContext, std::as_bytes(std::span(context)), records);
  return records;
}

}  // namespace ramferry
