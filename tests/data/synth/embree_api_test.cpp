#include "data/synth/embree_api.h"

#include <gtest/gtest.h>

#include <string>

#include "data/error.h"

namespace duoflow::data {
namespace {

std::string refusal(char const* library) {
  try {
    load_embree(library);
  } catch (DataError const& error) {
    return error.what();
  }
  return "";
}

TEST(EmbreeApiTest, AMissingLibraryIsNamedWithWhatToDo) {
  std::string const message = refusal("libembree-of-nowhere.so.3");
  EXPECT_NE(message.find("libembree-of-nowhere.so.3: cannot open"), std::string::npos) << message;
  EXPECT_NE(message.find("Install the package libembree3-3"), std::string::npos) << message;
  EXPECT_NE(message.find("--synth"), std::string::npos) << message;
}

TEST(EmbreeApiTest, ALibraryWithoutAFunctionIsRefusedWithTheFunctionsName) {
  std::string const message = refusal("libm.so.6");
  EXPECT_NE(message.find("libm.so.6"), std::string::npos) << message;
  EXPECT_NE(message.find("rtcNewDevice"), std::string::npos) << message;
}

TEST(EmbreeApiTest, TheMachinesEmbreeIsLoadedOnce) {
  EXPECT_EQ(&embree(), &embree());
  RTCDevice const device = embree().new_device("threads=1");
  ASSERT_NE(device, nullptr);
  embree().release_device(device);
}

}  // namespace
}  // namespace duoflow::data
