#include "launcher/control/console.h"

#include <limits>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

StepRow row_of(std::int64_t step, double seconds) {
  StepRow row;
  row.step = step;
  row.loss = 2.5;
  row.grad_norm = 1.25;
  row.learning_rate = 1e-3;
  row.step_seconds = seconds;
  row.bubble_fraction = 0.125;
  row.peak_memory_bytes = {1 << 30, 1 << 29};
  return row;
}

Prediction prediction_of() {
  Prediction prediction;
  prediction.step_seconds = 0.5;
  prediction.model_flops_utilization = 0.4;
  prediction.peak_memory_bytes = {1 << 30, 1 << 30};
  prediction.tokens_per_step = 1000;
  return prediction;
}

}  // namespace

TEST_CASE("metrics hold predicted beside measured", "[console]") {
  const Json object = metrics_object(row_of(3, 1.0), prediction_of());
  CHECK(object["step"].integer() == 3);
  CHECK(object["generation"].integer() == 1);
  CHECK(object["step_seconds"].number() == 1.0);
  CHECK(object["predicted_step_seconds"].number() == 0.5);
  CHECK(object["tokens_per_second"].number() == 1000.0);
  // Twice the predicted time: half the predicted utilization.
  CHECK(object["model_flops_utilization"].number() == Approx(0.2));
  CHECK(object["peak_memory_bytes"].array().size() == 2);
  CHECK(object["predicted_peak_memory_bytes"].array().size() == 2);
  CHECK(object["validation_loss"].is_null());
  StepRow validated = row_of(3, 1.0);
  validated.validation_loss = 2.25;
  CHECK(metrics_object(validated, prediction_of())["validation_loss"].number() == 2.25);
}

TEST_CASE("metrics of a model with experts say how many rows each one got", "[console]") {
  StepRow row = row_of(3, 1.0);
  CHECK(metrics_object(row, prediction_of())["expert_tokens"].is_null());
  row.expert_tokens = {{2, {7, 0, 1}}, {4, {3, 3, 2}}};
  CHECK(to_text(metrics_object(row, prediction_of())["expert_tokens"]) ==
        R"([{"block":2,"tokens":[7,0,1]},{"block":4,"tokens":[3,3,2]}])");
}

TEST_CASE("a loss that is no number is written as null", "[console]") {
  StepRow row = row_of(1, 1.0);
  row.loss = std::numeric_limits<double>::quiet_NaN();
  CHECK(to_text(metrics_object(row, prediction_of())).find("\"loss\":null") != std::string::npos);
}

TEST_CASE("the console line has the fields in their order", "[console]") {
  CHECK(console_line(row_of(10, 0.625), prediction_of()) ==
        "     10    2.5000    1.2500       1600  625.0 (500.0, -20.0 %)           1.000 (1.000)           32.0%");
}

TEST_CASE("a skipped step is told with its cause, and marked in metrics", "[console]") {
  const Json event = JsonObject{{"type", "step_skipped"},
                                {"step", 7},
                                {"rank", 2},
                                {"cause", "the gradients are not finite"},
                                {"loss_scale", 65536.0}};
  CHECK(skip_line(event) == "step 7 skipped: the gradients are not finite on rank 2; loss scale 65536, now half of it");
  StepRow row = row_of(7, 1.0);
  CHECK(metrics_object(row, prediction_of())["skipped"].is_null());
  CHECK(metrics_object(row, prediction_of())["loss_scale"].is_null());
  row.skipped = true;
  row.loss_scale = 32768;
  CHECK(metrics_object(row, prediction_of())["skipped"].boolean());
  CHECK(metrics_object(row, prediction_of())["loss_scale"].number() == 32768);
}
