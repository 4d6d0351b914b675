// The families of published planning problems, one line each.
#include "planner/problems/amp.h"
#include "planner/problems/contest.h"
#include "planner/problems/galvatron.h"
#include "planner/problems/metis.h"
#include "planner/problems/piper.h"
#include "planner/problems/sailor.h"
#include "planner/problems/zero_bubble.h"

namespace coxswain::planner {

const std::vector<ContestFamily>& contest_families() {
  static const std::vector<ContestFamily> families{
      {"amp", load_amp},     {"galvatron", load_galvatron}, {"metis", load_metis},
      {"piper", load_piper}, {"sailor", load_sailor},       {"zero_bubble", load_zero_bubble},
  };
  return families;
}

}  // namespace coxswain::planner
