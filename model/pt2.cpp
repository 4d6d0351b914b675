// load_pt2: archive layout and schema version, then Pt2Reader, then finish_graph. And the step that the exporter
// recorded.
#include <algorithm>

#include "model/archive.h"
#include "model/finish.h"
#include "model/load.h"
#include "model/pt2_reader.h"

namespace coxswain::model {
namespace {

constexpr std::int64_t kMaxModelBytes = std::int64_t{1} << 30;
constexpr std::int64_t kMaxManifestBytes = std::int64_t{64} << 20;
constexpr std::int64_t kSchemaMajor = 8;
constexpr std::int64_t kManifestVersion = 1;

struct ModelEntry {
  std::string root;  // folder inside the archive
  std::string name;  // models/NAME.json
};

Result<ModelEntry> find_model(const Archive& archive) {
  std::vector<ModelEntry> found;
  for (const auto& [name, entry] : archive.entries()) {
    const std::size_t slash = name.find('/');
    if (slash == std::string::npos || !name.ends_with(".json")) continue;
    constexpr std::string_view kFolder = "models/";
    const std::string_view rest = std::string_view(name).substr(slash + 1);
    if (!rest.starts_with(kFolder) || rest.find('/', kFolder.size()) != std::string_view::npos) continue;
    found.push_back(
        {name.substr(0, slash), std::string(rest.substr(kFolder.size(), rest.size() - kFolder.size() - 5))});
  }
  if (found.size() == 1) return found.front();
  return Error{ErrorCode::InvalidArgument,
               "not a .pt2 archive with one model",
               archive.path().string(),
               "one entry NAME/models/NAME.json, as torch.export.save of PyTorch 2.8 or later writes it",
               std::to_string(found.size()) + " such entries",
               "export the model with coxswain.export"};
}

Result<Json> read_json(const Archive& archive, const std::string& entry, std::int64_t max_size) {
  COX_TRY(const std::string text, archive.read(entry, max_size));
  auto document = parse_json(text);
  if (!document) {
    Error error = document.error();
    error.code = ErrorCode::DataLoss;
    error.path = archive.path().string() + ": " + entry + (error.path.empty() ? "" : "  " + error.path);
    return error;
  }
  return std::move(*document);
}

Result<Json> read_document(const Archive& archive, const ModelEntry& entry) {
  if (const std::string name = entry.root + "/byteorder"; archive.contains(name)) {
    COX_TRY(const std::string order, archive.read(name, 64));
    if (order != "little")
      return Error{ErrorCode::Unimplemented, "the archive's byte order", archive.path().string(), "little", order, ""};
  }
  COX_TRY(Json document, read_json(archive, entry.root + "/models/" + entry.name + ".json", kMaxModelBytes));
  const Json& major = document["schema_version"]["major"];
  if (!major.is_integer() || major.integer() != kSchemaMajor) {
    return Error{ErrorCode::Unimplemented,
                 "the archive's schema version",
                 archive.path().string() + ": schema_version.major",
                 std::to_string(kSchemaMajor),
                 to_text(major),
                 "export the model again with PyTorch 2.13"};
  }
  return document;
}

// The exporter saw the loss of a batch differ from the mean over its parts; only terms with a denominator may do that.
bool contradicts_manifest(const Archive& archive, const std::string& root, const ModelGraph& graph) {
  const std::string entry = root + "/extra/coxswain/manifest.json";
  if (!archive.contains(entry) || std::any_of(graph.loss.begin(), graph.loss.end(),
                                              [](const LossTerm& term) { return term.denominator.has_value(); })) {
    return false;
  }
  const auto manifest = read_json(archive, entry, kMaxManifestBytes);
  return manifest.has_value() && (*manifest)["loss"]["mean_over_samples"] == Json(false);
}

Result<ModelGraph> load(const std::filesystem::path& path) {
  COX_TRY(const Archive archive, Archive::open(path));
  COX_TRY(const ModelEntry entry, find_model(archive));
  COX_TRY(const Json document, read_document(archive, entry));
  COX_TRY(RawModel raw, Pt2Reader(archive, entry.root, entry.name).read(document));
  ModelGraph graph = std::move(raw.graph);
  ungroup_experts(graph);
  if (raw.coupled_losses.empty() && contradicts_manifest(archive, entry.root, graph)) {
    raw.coupled_losses.emplace_back(graph.loss.front().numerator,
                                    "the exporter saw the loss change when the batch was split");
  }
  COX_TRY_VOID(finish_graph(graph));
  add_coupled_losses(graph, raw.coupled_losses);
  return graph;
}

Error damaged_manifest(const std::filesystem::path& path, std::string what) {
  return Error{ErrorCode::DataLoss,     "the recorded step is damaged: " + std::move(what), path.string(), "", "",
               "export the model again"};
}

Result<RecordedStep> load_step(const std::filesystem::path& path) {
  COX_TRY(const Archive archive, Archive::open(path));
  COX_TRY(const ModelEntry entry, find_model(archive));
  const std::string name = entry.root + "/extra/coxswain/manifest.json";
  if (!archive.contains(name)) {
    return Error{ErrorCode::NotFound,
                 "the archive holds no recorded step",
                 path.string(),
                 "",
                 "",
                 "write it with coxswain.export, which records one"};
  }
  COX_TRY(const Json manifest, read_json(archive, name, kMaxManifestBytes));
  if (!(manifest["format_version"] == Json(kManifestVersion))) {
    return Error{ErrorCode::Unimplemented,         "the manifest's format version",     path.string(),
                 std::to_string(kManifestVersion), to_text(manifest["format_version"]), "export the model again"};
  }
  RecordedStep step;
  if (!manifest["inputs"].is_array() || !manifest["step"]["grad_norms"].is_object() ||
      !manifest["step"]["loss"].is_number() || !manifest["step"]["grad_norm"].is_number()) {
    return damaged_manifest(path, "members are missing");
  }
  for (const Json& input : manifest["inputs"].array()) {
    if (!input["entry"].is_string() || !input["dims"].is_array())
      return damaged_manifest(path, "an input is incomplete");
    step.input_entries.push_back(entry.root + "/" + input["entry"].string());
    if (!archive.contains(step.input_entries.back()))
      return damaged_manifest(path, "no entry " + step.input_entries.back());
    std::vector<std::int64_t> dims;
    for (const Json& dim : input["dims"].array()) {
      if (!dim.is_integer()) return damaged_manifest(path, "an input is incomplete");
      dims.push_back(dim.integer());
    }
    step.input_dims.push_back(std::move(dims));
  }
  step.loss = manifest["step"]["loss"].number();
  step.grad_norm = manifest["step"]["grad_norm"].number();
  for (const auto& [parameter, norm] : manifest["step"]["grad_norms"].object()) {
    if (!norm.is_number()) return damaged_manifest(path, "the gradient of " + parameter);
    step.grad_norms.emplace_back(parameter, norm.number());
  }
  return step;
}

}  // namespace

Result<ModelGraph> load_pt2(const std::filesystem::path& path) {
  return guard("model", [&] { return load(path); });
}

Result<RecordedStep> load_recorded_step(const std::filesystem::path& pt2) {
  return guard("model", [&] { return load_step(pt2); });
}

}  // namespace coxswain::model
