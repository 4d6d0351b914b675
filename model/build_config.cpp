// Which builder a config.json asks for.
#include <array>
#include <string>
#include <string_view>

#include "model/build_parts.h"
#include "model/load.h"

namespace coxswain::model {
namespace {

struct Family {
  std::string_view model_type;
  Result<ModelGraph> (*build)(const Json& config, std::int64_t sequence_length);
};
constexpr std::array<Family, 9> kFamilies{{{"bert", build_bert},
                                           {"gpt2", build_gpt2},
                                           {"llama", build_decoder},
                                           {"mistral", build_decoder},
                                           {"mixtral", build_decoder},
                                           {"qwen2", build_decoder},
                                           {"qwen3", build_decoder},
                                           {"qwen3_moe", build_decoder},
                                           {"vit", build_vit}}};

}  // namespace

Result<ModelGraph> build_from_config(const Json& config, const ConfigOptions& options) {
  if (!config.is_object())
    return Error{
        ErrorCode::InvalidArgument, "the model configuration is no JSON object", "", "{\"model_type\": ...}", "", ""};
  const Json& type = config["model_type"];
  std::string known;
  for (const Family& family : kFamilies) {
    if (type.is_string() && type.string() == family.model_type) return family.build(config, options.sequence_length);
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  return Error{ErrorCode::InvalidArgument,
               "no builder for this family of models",
               "model_type",
               "one of " + known,
               type.is_null() ? "nothing" : to_text(type),
               "export the model with coxswain.export and name the .pt2 file"};
}

}  // namespace coxswain::model
