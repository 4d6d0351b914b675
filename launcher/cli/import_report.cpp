#include "launcher/cli/import_report.h"

#include <algorithm>
#include <cstdio>
#include <vector>

namespace coxswain::launcher {
namespace {

using Row = std::vector<std::string>;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string whole(const Json& json) { return std::to_string(json.integer()); }

/// "3-7", or "3".
std::string range(std::int64_t first, std::int64_t last) {
  return first == last ? std::to_string(first) : std::to_string(first) + "-" + std::to_string(last);
}

std::string range(const Json& pair) { return range(pair.array()[0].integer(), pair.array()[1].integer()); }

/// "0-5, 9": ids in their own order.
std::string ranges(const JsonArray& ids) {
  std::string text;
  for (std::size_t i = 0; i < ids.size();) {
    std::size_t end = i + 1;
    while (end < ids.size() && ids[end].integer() == ids[end - 1].integer() + 1) ++end;
    text += (text.empty() ? "" : ", ") + range(ids[i].integer(), ids[end - 1].integer());
    i = end;
  }
  return text.empty() ? "-" : text;
}

std::string align(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) line += "  " + row[c] + std::string(widths[c] - row[c].size(), ' ');
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

/// "1 stage", "2 stages".
std::string counted(std::int64_t count, const std::string& word) {
  return std::to_string(count) + " " + word + (count == 1 ? "" : (word.ends_with("ch") ? "es" : "s"));
}

std::string stages_text(const JsonArray& stages) { return counted(static_cast<std::int64_t>(stages.size()), "stage"); }

std::string piper_plan(const Json& answer) {
  const JsonArray& stages = answer["stages"].array();
  std::vector<Row> rows{{"stage", "devices", "dp", "tp", "nodes", "recomputed nodes"}};
  std::int64_t devices = 0;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const std::int64_t used = stages[s]["dp"].integer() * stages[s]["tp"].integer();
    devices += used;
    rows.push_back({std::to_string(s), std::to_string(used), whole(stages[s]["dp"]), whole(stages[s]["tp"]),
                    ranges(stages[s]["nodes"].array()), ranges(stages[s]["recompute_nodes"].array())});
  }
  return stages_text(stages) + " on " + counted(devices, "device") + "\n" + align(rows);
}

std::string galvatron_plan(const Json& answer) {
  const Json& embedding = answer["embedding"];
  const auto strategy = [](const Json& json) {
    return Row{whole(json["tp"]), whole(json["sp"]), whole(json["dp"]), whole(json["zero"])};
  };
  std::vector<Row> rows{{"layers", "tp", "sp", "dp", "zero", "recompute"}};
  std::int64_t layer = 0;
  for (const Json& run : answer["layers"].array()) {
    Row row = strategy(run);
    const std::int64_t count = run["count"].integer();
    row.insert(row.begin(), range(layer, layer + count - 1));
    row.emplace_back(run["recompute"].boolean() ? "yes" : "no");
    rows.push_back(std::move(row));
    layer += count;
  }
  Row ends = strategy(embedding);
  ends.insert(ends.begin(), "embedding, head");
  rows.push_back(std::move(ends));
  std::string split;
  for (const Json& layers : answer["split"].array()) split += (split.empty() ? "" : ", ") + whole(layers);
  return stages_text(answer["split"].array()) + " of " + split + " layers, " +
         counted(answer["chunks"].integer(), "micro-batch") + "\n" + align(rows);
}

std::string sailor_plan(const Json& answer) {
  const JsonArray& stages = answer["stages"].array();
  std::vector<Row> rows{{"stage", "layers", "replicas", "tp", "gpu", "zone"}};
  std::int64_t devices = 0;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    std::string name = std::to_string(s), layers = range(stages[s]["layers"]);
    for (const Json& run : stages[s]["replicas"].array()) {
      devices += run["count"].integer() * run["tp"].integer();
      rows.push_back({name, layers, whole(run["count"]), whole(run["tp"]), run["gpu"].string(), run["zone"].string()});
      name = layers = "";
    }
  }
  return stages_text(stages) + " on " + counted(devices, "device") + ", micro-batch of " + whole(answer["microbatch"]) +
         " a replica\n" + align(rows);
}

std::string metis_plan(const Json& answer) {
  const JsonArray& stages = answer["stages"].array();
  std::vector<Row> rows{{"stage", "layers", "replicas", "tp", "samples", "type", "devices of the type"}};
  std::int64_t devices = 0;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    std::string name = std::to_string(s), layers = range(stages[s]["layers"]);
    for (const Json& run : stages[s]["replicas"].array()) {
      devices += run["count"].integer() * stages[s]["tp"].integer();
      rows.push_back({name, layers, whole(run["count"]), whole(stages[s]["tp"]), whole(run["samples"]),
                      run["device_type"].string(), range(run["devices"])});
      name = layers = "";
    }
  }
  return stages_text(stages) + " on " + counted(devices, "device") + ", " +
         counted(answer["micro_batches"].integer(), "micro-batch") + " of " + whole(answer["micro_batch"]) +
         " samples\n" + align(rows);
}

}  // namespace

Json import_json(const std::string& format, const planner::ContestAnswer& answer, double search_seconds) {
  JsonArray notes;
  for (const std::string& note : answer.notes) notes.emplace_back(note);
  return JsonObject{{"format", format},
                    {"answer", answer.answer},
                    {"score", answer.score},
                    {"unit", answer.unit},
                    {"step_seconds", answer.step_seconds},
                    {"lower_bound_step_seconds",
                     answer.lower_bound_step_seconds ? Json(*answer.lower_bound_step_seconds) : Json(nullptr)},
                    {"notes", std::move(notes)},
                    {"search", JsonObject{{"seconds", search_seconds}, {"labels", answer.num_labels}}}};
}

std::string import_table(const std::string& format, const planner::ContestAnswer& answer, double search_seconds) {
  std::string text = "plan          ";
  if (format == "piper") text += piper_plan(answer.answer);
  if (format == "galvatron") text += galvatron_plan(answer.answer);
  if (format == "sailor") text += sailor_plan(answer.answer);
  if (format == "metis") text += metis_plan(answer.answer);
  text += "predicted     " + number(answer.score) + " " + answer.unit + " by the formulas of " + format;
  if (answer.unit != "seconds per step") text += ", " + number(answer.step_seconds) + " s a step";
  text += "\n";
  if (answer.lower_bound_step_seconds) {
    const double gap = answer.step_seconds / *answer.lower_bound_step_seconds - 1;
    text += "lower bound   " + number(*answer.lower_bound_step_seconds) + " s a step" +
            (gap < 1e-6 ? ": no plan is better"
                        : ", " + number(gap * 100) + " % below the plan: no plan is better by more") +
            "\n";
  } else {
    text += "lower bound   none is known for this format\n";
  }
  text += "search        " + number(search_seconds) + " s, " + std::to_string(answer.num_labels) + " labels\n";
  for (const std::string& note : answer.notes) text += "note          " + note + "\n";
  return text;
}

}  // namespace coxswain::launcher
