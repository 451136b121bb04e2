#pragma once
// Plain pairs of latents -> pair shards. P pairs, in one source or many (then in the order given, alike in everything
// but P):
//
//   needed     x0, x1 [P,n,d] f32, f16, bf16 (f64 is rounded to f32)      target_images u8 [P,T,H,W,3]: under the light
//   of x1
//              target_c2w [P,T,4,4], target_fxfycxcy [P,T,4] f32 or f64   env f16, f32 or f64 [P,h,w,3]: the light of
//              x1, linear;
//                                                                         or [L,h,w,3] with env_row i64 [P]
//   optional   target_alpha u8 [P,T,H,W] (else: no mask)
//              world_to_norm [P,4,4] (else the identity: cameras and maps are in one frame, that of the latents)
// One pair may come without the first axis: x0 [n,d], target_images [T,H,W,3], ...
// Cameras are OpenCV c2w in the frame of the latents (normalised, cameras.h), intrinsics in pixels.
//
// Each pair makes two rows and is an object of its own unless names say otherwise; view_set is the pair's number. Of
// the light of x0 nothing is known: its row has black pictures, the cameras of x1, and a black map, which training
// never reads. latents_only: pictures, cameras and alpha must not be there; each row gets one black picture of that
// size and a camera in the middle of it, and a map that is not there is black. Only the velocity loss has a meaning
// then, which the shards' note says.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/tools/plain_array.h"
#include "data/shards/shard_schema.h"

namespace duoflow::data {

struct PlainSource {
  std::string path;
  std::function<PlainArrays()> open;  // called twice: a folder may hold more files than a process can keep open
};

struct PairName {
  std::string object, light_x0, light_x1;
};
// One line per pair: object,light of x0,light of x1. DataError naming the line.
std::vector<PairName> read_pair_names(std::string const& path);

struct PairImportOptions {
  std::string out;
  std::string object_prefix = "pair";      // objects PREFIX-000000, ... where there are no names
  std::vector<PairName> names = {};        // empty, or one per pair
  std::string producer = {};               // of the latents: the hash that training compares, where it is known
  std::optional<DType> latent_dtype = {};  // nullopt: as stored
  std::int64_t latents_only = 0;           // side in pixels of the black pictures of latents without any; 0: pictures are needed
  std::uint64_t shard_bytes = std::uint64_t{1} << 30;
  std::function<void(std::string const&)> say = {};
};
struct PairImportReport {
  std::int64_t pairs = 0, shards = 0, tokens = 0, dim = 0;
  DType latent_dtype = DType::f32;
};
// The folder has its name only when it is whole. DataError naming file, dataset and row: missing, of another type or
// shape than needed or than in the first source, a number that is not finite, a camera that is none.
PairImportReport import_pairs(std::vector<PlainSource> const& sources, PairImportOptions const& options);

}  // namespace duoflow::data
