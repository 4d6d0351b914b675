#include "checkpoint/manifest.h"

#include <limits>
#include <map>
#include <set>
#include <utility>

#include "common/hash.h"

namespace coxswain::checkpoint {
namespace {

constexpr std::int64_t kFormat = 1;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr const char* kChecksum = "sha256";

Json runs_to_json(const std::vector<plan::Cut::Run>& runs) {
  JsonArray array;
  for (const plan::Cut::Run& run : runs) array.push_back(JsonArray{run.first, run.size});
  return array;
}

Json to_json(const Piece& piece) {
  Json json;
  json["parameter"] = piece.parameter;
  json["dims"] = JsonArray(piece.dims.begin(), piece.dims.end());
  json["first"] = piece.first;
  json["count"] = piece.count;
  if (piece.rows.empty()) return json;
  JsonArray rows;
  for (const auto& runs : piece.rows) rows.push_back(runs_to_json(runs));
  json["rows"] = std::move(rows);
  return json;
}

Error problem(std::string message, std::string expected, std::string got) {
  return Error{ErrorCode::InvalidArgument, std::move(message), "", std::move(expected), std::move(got), ""};
}

/// Ascending runs within `extent`; how many rows they take, or -1.
std::int64_t read_runs(const Json& json, std::int64_t extent, std::vector<plan::Cut::Run>& runs) {
  if (!json.is_array()) return -1;
  std::int64_t next = 0, rows = 0;
  for (const Json& entry : json.array()) {
    if (!entry.is_array() || entry.array().size() != 2) return -1;
    const Json &first = entry.array()[0], &size = entry.array()[1];
    if (!first.is_integer() || !size.is_integer() || first.integer() < next || size.integer() < 0) return -1;
    if (first.integer() > extent || size.integer() > extent - first.integer()) return -1;
    runs.push_back({first.integer(), size.integer()});
    next = first.integer() + size.integer();
    rows += size.integer();
  }
  return rows;
}

/// Sizes of a tensor whose elements can be counted; -1 where they are not.
std::int64_t read_dims(const JsonArray& array, std::vector<std::int64_t>& dims) {
  std::int64_t elements = 1;
  for (const Json& dim : array) {
    if (!dim.is_integer() || dim.integer() < 0) return -1;
    if (dim.integer() > 0 && elements > kMost / dim.integer()) return -1;
    elements *= dim.integer();
    dims.push_back(dim.integer());
  }
  return elements;
}

Result<Piece> piece_from_json(const Json& json, const std::string& path) {
  JsonReader reader(json, path);
  Piece piece;
  piece.parameter = reader.string("parameter");
  std::int64_t elements = read_dims(reader.array("dims"), piece.dims);
  if (elements < 0) reader.problem(problem("the dims are no sizes of a tensor", "integers from 0 on", ""));
  if (reader.has("rows")) {
    const JsonArray& rows = reader.array("rows");
    if (rows.size() != piece.dims.size()) {
      reader.problem(problem("rows of other dims than the parameter has", std::to_string(piece.dims.size()),
                             std::to_string(rows.size())));
      elements = -1;
    }
    // The part's elements are at most the whole's.
    for (std::size_t d = 0; elements >= 0 && d < rows.size(); ++d) {
      piece.rows.emplace_back();
      const std::int64_t taken = read_runs(rows[d], piece.dims[d], piece.rows.back());
      if (taken < 0) {
        reader.problem(problem("rows that are not inside the dim, or not ascending", "[first, size] pairs",
                               coxswain::to_text(rows[d])));
        elements = -1;
      } else {
        elements = piece.dims[d] == 0 ? 0 : elements / piece.dims[d] * taken;
      }
    }
  }
  const std::int64_t most = elements < 0 ? 0 : elements;
  piece.first = reader.integer("first", 0, most);
  piece.count = reader.integer("count", 0, most);
  if (elements >= 0 && piece.count > elements - piece.first)
    reader.problem(problem("the piece ends behind its part", std::to_string(elements) + " elements",
                           std::to_string(piece.first) + " + " + std::to_string(piece.count)));
  COX_TRY_VOID(reader.finish());
  return piece;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

Json body_of(const Manifest& manifest) {
  Json json;
  json["format"] = kFormat;
  json["step"] = manifest.progress.step;
  json["next_sample"] = manifest.progress.next_sample;
  json["seed"] = std::to_string(manifest.seed);
  json["model"] = manifest.model_hash;
  json["plan"] = manifest.plan_hash;
  Json scale;
  scale["value"] = manifest.progress.loss_scale;
  scale["steps_since_scaled"] = manifest.progress.steps_since_scaled;
  scale["skipped_steps"] = manifest.progress.skipped_steps;
  scale["skipped_in_a_row"] = manifest.progress.skipped_in_a_row;
  json["loss_scale"] = std::move(scale);
  JsonArray shards;
  for (const Shard& shard : manifest.shards) shards.push_back(to_json(shard));
  json["shards"] = std::move(shards);
  return json;
}

Error damaged(std::string message, std::string expected, std::string got) {
  return Error{ErrorCode::DataLoss, std::move(message), "",
               std::move(expected), std::move(got),     "an older checkpoint is used in its place"};
}

Result<Manifest> read_body(const Json& json) {
  JsonReader reader(json, "manifest");
  Manifest manifest;
  Progress& progress = manifest.progress;
  reader.integer("format", kFormat, kFormat);
  progress.step = reader.integer("step", 0, kMost);
  progress.next_sample = reader.integer("next_sample", 0, kMost);
  const std::string seed = reader.string("seed");
  for (const char digit : seed) {
    if (digit < '0' || digit > '9' || seed.size() > 20) {
      reader.problem(problem("the seed is no number", "decimal digits", seed));
      break;
    }
    manifest.seed = manifest.seed * 10 + static_cast<std::uint64_t>(digit - '0');
  }
  manifest.model_hash = reader.string("model");
  manifest.plan_hash = reader.string("plan");
  JsonReader scale(reader.object("loss_scale"), "loss_scale");
  progress.loss_scale = scale.number("value");
  progress.steps_since_scaled = scale.integer("steps_since_scaled", 0, kMost);
  progress.skipped_steps = scale.integer("skipped_steps", 0, kMost);
  progress.skipped_in_a_row = scale.integer("skipped_in_a_row", 0, kMost);
  for (Error& error : scale.take_problems()) reader.problem(std::move(error));
  std::set<std::string> names;
  const JsonArray& shards = reader.array("shards");
  for (std::size_t i = 0; i < shards.size(); ++i) {
    auto shard = shard_from_json(shards[i], "shards[" + std::to_string(i) + "]");
    if (!shard) {
      reader.problem(shard.error());
    } else if (!names.insert(shard->file).second) {
      reader.problem(problem("two shards of one name", "", shard->file));
    } else {
      manifest.shards.push_back(std::move(*shard));
    }
  }
  COX_TRY_VOID(reader.finish());
  return manifest;
}

}  // namespace

Json to_json(const Shard& shard) {
  Json json;
  json["file"] = shard.file;
  json["bytes"] = shard.size.value;
  json["sha256"] = shard.sha256;
  JsonArray pieces;
  for (const Piece& piece : shard.pieces) pieces.push_back(to_json(piece));
  json["pieces"] = std::move(pieces);
  return json;
}

Result<Shard> shard_from_json(const Json& json, const std::string& path) {
  JsonReader reader(json, path);
  Shard shard;
  shard.file = reader.string("file");
  if (!is_plain_name(shard.file))
    reader.problem(problem("no name of a file in this folder", "a name without / and not hidden", shard.file));
  shard.size = Bytes(reader.integer("bytes", 0, kMost));
  shard.sha256 = reader.string("sha256");
  const JsonArray& pieces = reader.array("pieces");
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    auto piece = piece_from_json(pieces[i], "pieces[" + std::to_string(i) + "]");
    if (piece)
      shard.pieces.push_back(std::move(*piece));
    else
      reader.problem(piece.error());
  }
  COX_TRY_VOID(reader.finish());
  return shard;
}

std::string to_text(const Manifest& manifest) {
  Json json = body_of(manifest);
  const std::string checksum = sha256_hex(coxswain::to_text(json));
  json[kChecksum] = checksum;
  return coxswain::to_text(json) + "\n";
}

Result<Manifest> parse_manifest(const std::string& text) {
  auto json = parse_json(text);
  if (!json || !json->is_object()) return damaged("the manifest is no JSON object", "", "");
  const Json checksum = (*json)[std::string_view(kChecksum)];
  json->object().erase(kChecksum);
  if (!checksum.is_string() || checksum.string() != sha256_hex(coxswain::to_text(*json)))
    return damaged("the manifest is not as it was written", "its own SHA-256", "another one");
  auto manifest = read_body(*json);
  // Blanks that JSON does not count are damage too.
  if (manifest && to_text(*manifest) != text)
    return damaged("the manifest is not as it was written", "its canonical text", "another one");
  if (manifest) return manifest;
  Error error = damaged("the manifest cannot be read", "", "");
  error.details = {manifest.error()};
  return error;
}

Result<void> check_complete(const std::vector<Shard>& shards) {
  struct Found {
    std::vector<std::int64_t> dims;
    std::vector<FlatRun> missing;
  };
  std::map<std::string, Found> parameters;
  for (const Shard& shard : shards) {
    for (const Piece& piece : shard.pieces) {
      const auto [found, is_new] = parameters.try_emplace(piece.parameter);
      if (is_new) found->second = {piece.dims, flat_runs(whole_piece(piece.parameter, piece.dims))};
      if (found->second.dims != piece.dims)
        return with_path_prefix(damaged("shards disagree on the parameter's dims", "", ""), piece.parameter);
      found->second.missing = take_common(found->second.missing, flat_runs(piece), [](auto, auto, auto) {});
    }
  }
  for (const auto& [name, found] : parameters) {
    if (found.missing.empty()) continue;
    return with_path_prefix(damaged("no shard holds all of the parameter", "every element",
                                    "none for element " + std::to_string(found.missing.front().whole)),
                            name);
  }
  return {};
}

}  // namespace coxswain::checkpoint
