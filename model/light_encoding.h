#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace duoflow::model {

enum class LightEncoding { lvsm, cosmos, raw };
LightEncoding light_encoding_from_string(std::string const& name);  // std::invalid_argument listing the names

// Linear HDR maps [B,h,w,3] (world frame, convention of data/images/environment_map.h) -> [B,1,9,h,w]: LDR, log HDR, direction.
// lvsm: clip(x,0,1)^(1/2.2); log1p(10x)/max over the map; unit direction in the normalised frame (world_to_norm [B,4,4]'s rotation).
// cosmos: sRGB(Reinhard, max 16); sRGB(log1p(x)/log1p(10000)); direction. raw: x; log1p(x); direction.
at::Tensor encode_light(at::Tensor const& env_hdr, at::Tensor const& world_to_norm, LightEncoding encoding);

}  // namespace duoflow::model
