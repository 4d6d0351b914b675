#pragma once
// The command line: one file a command; here parsing, error printing and exit codes. Called by main only.
// Source: INTERFACE section 1.

namespace coxswain::launcher {

/// Runs one command; prints errors to stderr; returns the exit code.
[[nodiscard]] int run_cli(int argc, char** argv);

}  // namespace coxswain::launcher
