#pragma once
// Log lines: "2026-01-31 12:00:00 [rank 3/8] warning: text" on stderr and, once named, in a file (RUN/log.txt). The
// rank is left out when the world is one rank. Rank 0 logs everything; the others only warnings and errors, so a line
// that all ranks would say alike is said once. All functions may be called from any thread, and before start_logging
// (as the only rank). They never throw for a line that cannot be written: a full disk ends no training by its log.

#include <filesystem>
#include <string_view>

namespace duoflow::launch {

void start_logging(int rank, int size);
// Appends what this process logs from now on to path too. File and folder are made by the first line; every rank may
// name the same file.
void log_to_file(std::filesystem::path const& path);

void log_info(std::string_view text);
void log_warning(std::string_view text);
void log_error(std::string_view text);

enum class LogLevel { info, warning, error };
// Once per key and process: for what would otherwise be said for every sample or step.
void log_once(LogLevel level, std::string_view key, std::string_view text);

// ---- a status line at the terminal's bottom, below the log lines ----

// Whether it is shown: stderr is a terminal and this is rank 0. Without it show_status does nothing.
bool has_status_line();
// Replaces the status; empty removes it.
void show_status(std::string_view text);
// An info line for the file alone: what the terminal shows as its status.
void log_info_file_only(std::string_view text);

}  // namespace duoflow::launch
