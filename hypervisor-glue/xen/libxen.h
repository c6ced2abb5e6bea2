// Xen's C headers, which know nothing of C++, and the one exported function that they leave out.
#pragma once

#include <pthread.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <cstdarg>
#include <cstdbool>
#include <cstddef>
#include <cstdint>
#include <cstdio>

// They have anonymous structs, and refuse to be read where GNU's extensions are said to be off.
#pragma push_macro("__STRICT_ANSI__")
#undef __STRICT_ANSI__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wold-style-cast"
extern "C" {
// clang-format off
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenguest.h>
#include <xenstore.h>
#include <xentoollog.h>
#include <xen/hvm/params.h>
// clang-format on

// libxenctrl 4.17 exports it (xl's own saver uses it), its header does not declare it. In: up to
// 1024 frame numbers. Out: their types, XEN_DOMCTL_PFINFO_*.
int xc_get_pfn_type_batch(xc_interface* xch, uint32_t dom, unsigned int num, xen_pfn_t* frames);
}
#pragma GCC diagnostic pop
#pragma pop_macro("__STRICT_ANSI__")
