#include "launcher/rest/known_models.h"

#include "tests/support/graph_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

KnownModels::Model chain() { return std::make_shared<const cost_model::KnownModel>(make_chain_graph()); }

}  // namespace

TEST_CASE("a model that was read is given again, with what was found out about it", "[known_models]") {
  KnownModels models;
  int num_read = 0;
  const auto read = [&]() -> Result<KnownModels::Model> {
    ++num_read;
    return chain();
  };
  const KnownModels::Model first = *models.get("a", read);
  const Bytes before = first->kept_bytes();
  (void)first->facts.totals(1, 4);
  CHECK(first->kept_bytes() > before);
  CHECK(*models.get("a", read) == first);
  CHECK(num_read == 1);
  CHECK(*models.get("b", read) != first);
  CHECK(num_read == 2);
}

TEST_CASE("a model that could not be read is read again", "[known_models]") {
  KnownModels models;
  CHECK_FALSE(models.get("a", [] { return Error{ErrorCode::NotFound, "no such model", "", "", "", ""}; }));
  CHECK(models.get("a", [] { return chain(); }));
  CHECK(models.num_kept() == 1);
}

TEST_CASE("models that were asked for longest ago go first", "[known_models]") {
  const Bytes each = chain()->kept_bytes();
  KnownModels models(each * 2);
  const auto read = [] { return chain(); };
  const KnownModels::Model a = *models.get("a", read), b = *models.get("b", read);
  CHECK(*models.get("a", read) == a);
  (void)models.get("c", read);
  CHECK(models.num_kept() == 2);
  CHECK(*models.get("a", read) == a);
  CHECK(*models.get("b", read) != b);
}

TEST_CASE("a model of which too much is known by now is read anew", "[known_models]") {
  KnownModels models(chain()->kept_bytes());
  const auto read = [] { return chain(); };
  const KnownModels::Model model = *models.get("a", read);
  (void)model->facts.totals(1, 4);
  CHECK(*models.get("a", read) == model);  // whoever has it may go on with it
  CHECK(models.num_kept() == 0);
  CHECK(*models.get("a", read) != model);
}
