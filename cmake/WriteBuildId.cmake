# cmake -DSOURCE=DIR -DOUTPUT=FILE -P WriteBuildId.cmake: what tells one state of the code from another, as a source file.
# The commit, with a hash of what has been changed since; "unknown" outside a repository. Written only when it changes.
set(code dist gpu model data text launch cmake CMakeLists.txt)
set(git git -c "safe.directory=${SOURCE}" -C "${SOURCE}")
set(id "unknown")
execute_process(COMMAND ${git} rev-parse --show-prefix OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE is_no_repository ERROR_QUIET)
if(is_no_repository EQUAL 0 AND prefix STREQUAL "")
  execute_process(COMMAND ${git} rev-parse --short=12 HEAD OUTPUT_VARIABLE id OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  execute_process(COMMAND ${git} diff HEAD -- ${code} OUTPUT_VARIABLE changes ERROR_QUIET)
  if(NOT changes STREQUAL "")
    string(SHA1 hash "${changes}")
    string(SUBSTRING "${hash}" 0 8 hash)
    string(APPEND id "+${hash}")
  endif()
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT [[
namespace duoflow::launch {
extern char const* const build_id;
char const* const build_id = "@id@";
}  // namespace duoflow::launch
]] @ONLY)
