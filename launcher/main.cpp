// `launch`: the control plane. Exit codes are those of INTERFACE section 1.
#include "launcher/cli/cli.h"

int main(int argc, char** argv) { return coxswain::launcher::run_cli(argc, argv); }
