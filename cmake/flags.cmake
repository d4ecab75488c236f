# Flags of every target: standard, warnings, numerics, visibility, sanitizers.
set(CMAKE_C_STANDARD 99)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
find_package(Threads REQUIRED)

add_library(chorus_flags INTERFACE)
target_compile_options(chorus_flags INTERFACE -Wall -Wextra -Wpedantic -Werror -ffp-contract=off
                       -fno-math-errno -fstack-protector-strong)
target_link_options(chorus_flags INTERFACE -Wl,-z,defs -Wl,-z,now -Wl,-z,relro -Wl,--as-needed)

# Sanitizers never recover: a finding is a failed test.
if(CHORUS_SANITIZE STREQUAL "address")
  target_compile_options(chorus_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all
                         -fno-omit-frame-pointer)
  target_link_options(chorus_flags INTERFACE -fsanitize=address,undefined -Wl,-z,nodefs)
elseif(CHORUS_SANITIZE STREQUAL "thread")
  target_compile_options(chorus_flags INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(chorus_flags INTERFACE -fsanitize=thread -Wl,-z,nodefs)
elseif(NOT CHORUS_SANITIZE STREQUAL "")
  message(FATAL_ERROR "CHORUS_SANITIZE is '${CHORUS_SANITIZE}'; allowed: address, thread, or empty")
endif()

# chorus_add_plugin(name sources…): one .so in chorus-plugins/ that exports chorus_plugin_query alone and links nothing
# of libchorus.
function(chorus_add_plugin name)
  add_library(chorus-${name} MODULE ${ARGN})
  target_link_libraries(chorus-${name} PRIVATE chorus_flags)
  target_include_directories(chorus-${name} PRIVATE ${PROJECT_SOURCE_DIR}/include)
  target_link_options(chorus-${name} PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/plugin.map
                      -Wl,-z,nodelete)
  set_target_properties(chorus-${name} PROPERTIES PREFIX "" OUTPUT_NAME chorus-${name} NO_SONAME ON
                        LIBRARY_OUTPUT_DIRECTORY ${CHORUS_PLUGIN_DIR})
endfunction()
