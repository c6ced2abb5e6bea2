# Warnings, sanitizers and ccache: the same for every target of the project.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

add_library(ramferry_options INTERFACE)
target_compile_options(ramferry_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual
  -Wno-missing-field-initializers -fno-strict-aliasing)
if(RAMFERRY_SANITIZE)
  # A finding of UndefinedBehaviorSanitizer must fail the test, too.
  add_compile_options(-fsanitize=${RAMFERRY_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${RAMFERRY_SANITIZE})
endif()

if(RAMFERRY_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)  # coverage, so that the fuzzer sees its way
endif()

# ramferry_library(NAME SOURCES ... [DEPENDS ...]): one static library of the house.
function(ramferry_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC ${arg_DEPENDS} PRIVATE ramferry_options)
endfunction()
