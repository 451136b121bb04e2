#pragma once
// encode: scene shards -> pair shards. Latents are stored once per scene; pairs are all ordered pairs of an object's
// lights with another base light. The environment map of each light is stored once per shard.

#include <string>

#include "dist/communicator.h"
#include "launch/model_setup.h"

namespace duoflow::launch {

struct EncodeOptions {
  std::string data, out;
  std::string dtype = "bf16";
  std::string lights = "*", exclude_lights;  // globs on light names
  std::string target_frames;                 // overrides the config's data.target_frames
  std::int64_t batch = 8;
  bool overwrite = false;  // replace what another reconstructor encoded
};

// One shard per object; objects are divided over the ranks. A shard's bytes depend on neither the ranks nor on how
// often the call was interrupted: what an earlier one finished is kept if it was made from the same (encoded_folder.h).
// DataError also when another process is writing the folder, or it holds latents of another reconstructor.
// Collective: all ranks call; rank 0 writes the manifest.
void encode(dist::Communicator const& communicator, LoadedModel const& loaded, EncodeOptions const& options);

}  // namespace duoflow::launch
