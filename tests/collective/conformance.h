#pragma once
// What every backend must do, as cases that each rank of one communicator runs. Inputs are powers of ten (of two for
// narrow dtypes), so that the digits of a sum name the ranks whose terms are in it.
#include <string>
#include <vector>

#include "tests/collective/ranks.h"

namespace coxswain::collective {

struct ConformanceCase {
  std::string name;
  void (*run)(Communicator& communicator, Report& report);
};

[[nodiscard]] const std::vector<ConformanceCase>& conformance_cases();

/// Every case in turn; failures are prefixed with its name.
void run_conformance(Communicator& communicator, Report& report);

}  // namespace coxswain::collective
