#pragma once
// The two kinds of shard (names are contracts, DESIGN section 6) and the types of numbers in them.
//
//   scene shard   /images u8 [F,H,W,3]  /alpha u8 [F,H,W]?  /c2w f32 [F,4,4] (OpenCV, world)  /fxfycxcy f32 [F,4] (pixels)
//                 /env f16 [L,h,w,3] linear HDR, world frame, or /env_ldr,/env_hdr u8 [F,h,w,3] per frame when only those exist
//                 /scene/{object,light} fixed-length strings  /scene/{first_frame,frame_count,env_row} i64 [S]
//                 /scene/env_rotation f32 [S,3,3] (light direction in the map's frame = R * world direction)
//   pair shard    one row = one (object, light, set of input views):
//                 /latents {f32|f16|bf16} [R,n,d]  /target_images u8 [R,T,H,W,3]  /target_alpha u8 [R,T,H,W]?
//                 /target_c2w f32 [R,T,4,4] (normalised)  /target_fxfycxcy f32 [R,T,4]  /env_row i64 [R]  /env f16 [L,h,w,3]
//                 /world_to_norm f32 [R,4,4]  /row/{object,light} strings  /row/view_set i64 [R]
//                 /pairs i64 [P,2] (rows of x0 and x1: same object and view set)
//                 attributes: producer (hash), latent_mean f32 [d], latent_std f32 [d]
//
// All datasets are contiguous, unfiltered, allocated early, never filled, aligned to 4096 (from 64 KiB on). bf16 is a real 16-bit float
// type in the file. HDF5 never converts numbers.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace duoflow::data {

inline constexpr std::int64_t kSchemaVersion = 1;
inline constexpr std::size_t kNameBytes = 64;  // fixed-length strings, NUL padded

enum class DType { u8, i64, f16, bf16, f32, name };
std::size_t byte_size(DType dtype);
std::string to_string(DType dtype);          // "u8" ...
DType dtype_from_string(std::string const&);  // throws DataError

enum class ShardKind { scene, pair };
std::string to_string(ShardKind kind);           // "scene", "pair"
ShardKind kind_from_string(std::string const&);  // throws DataError

struct DatasetSpec {
  std::string name;  // "images", "scene/object", ...
  DType dtype = DType::u8;
  std::vector<std::int64_t> shape;  // shape[0] counts rows
  std::int64_t rows() const { return shape.empty() ? 0 : shape[0]; }
  std::size_t row_bytes() const;
};

struct Attributes {  // of a shard's root group; absent vectors are not written
  std::string producer = {};
  std::vector<float> latent_mean = {}, latent_std = {};
  std::string note = {};  // free text: how it was made
};

}  // namespace duoflow::data
