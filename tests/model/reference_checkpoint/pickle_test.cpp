#include "model/reference_checkpoint/pickle.h"

#include <gtest/gtest.h>

#include "tests/model/reference_checkpoint/bytes_in_memory.h"

namespace duoflow::model::test {
namespace {

using Kind = PickleNode::Kind;
using namespace std::string_literals;

std::string error_of(std::string const& bytes) {
  return format_error([&] { Pickle{bytes}; });
}

// pickle.dumps({"a": [1, 300, -7, 70000, 2**40, -2**40, 1.5], "b": (True, None, "x"), "c": {}}, protocol=2)
std::string const kPlain =
    "\x80\x02}q\x00(X\x01\x00\x00\x00"
    "aq\x01]q\x02(K\x01M,"
    "\x01J\xf9\xff\xff\xffJp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x06\x00\x00\x00\x00\x00\xff"
    "G?\xf8\x00\x00\x00\x00\x00\x00"
    "eX\x01\x00\x00\x00"
    "bq\x03\x88NX\x01\x00\x00\x00xq\x04\x87q\x05X\x01\x00\x00\x00"
    "cq\x06}q\x07u."s;

TEST(PickleTest, PlainContainersAreRead) {
  Pickle const pickle(kPlain);
  auto const& root = pickle.root();
  ASSERT_EQ(root.kind, Kind::dict);
  auto const* list = root.get("a");
  ASSERT_EQ(list->kind, Kind::list);
  std::vector<std::int64_t> integers;
  for (auto const* item : list->items)
    if (item->kind == Kind::integer) integers.push_back(item->integer);
  EXPECT_EQ(integers, (std::vector<std::int64_t>{1, 300, -7, 70000, 1ll << 40, -(1ll << 40)}));
  EXPECT_EQ(list->items.back()->real, 1.5);
  auto const* tuple = root.get("b");
  ASSERT_EQ(tuple->kind, Kind::tuple);
  EXPECT_EQ(tuple->items[0]->integer, 1);
  EXPECT_EQ(tuple->items[1]->kind, Kind::none);
  EXPECT_EQ(tuple->items[2]->text, "x");
  EXPECT_TRUE(root.get("c")->entries.empty());
  EXPECT_EQ(root.get("d"), nullptr);
}

TEST(PickleTest, ClassesAndFunctionsOtherThanTensorsAreNamedAndNotCalled) {
  for (auto const& global :
       {"os\nsystem\n"s, "builtins\neval\n"s, "torch\nload\n"s, "numpy.core.multiarray\nscalar\n"s}) {
    auto const said = error_of(
        "\x80\x02"
        "c"s +
        global + "X\x02\x00\x00\x00ls\x85R."s);
    EXPECT_NE(said.find("it refers to " + global.substr(0, global.find('\n')) + "."), std::string::npos) << said;
  }
  // The newer way to name one.
  EXPECT_NE(error_of("\x80\x04\x8c\x02os\x8c\x06system\x93."s).find("os.system"), std::string::npos);
}

TEST(PickleTest, OperationsThatTensorsDoNotNeedAreErrors) {
  for (char const op : {'i', 'o', '\x81', '\x92', 'P', 'I', 'S', '\x97'})
    EXPECT_NE(error_of("\x80\x02"s + op + "."), "") << op;
  EXPECT_NE(error_of("\x80\x02]\x81."s).find("0x81"), std::string::npos);
}

TEST(PickleTest, WhatIsMalformedIsAnError) {
  for (auto const& bytes : {""s,
                            "\x80"s,
                            "\x80\x02"s,
                            "."s,
                            "}"s,
                            "a."s,
                            "(u."s,
                            "}(K\x01u."s,
                            "]K\x01."s,
                            "h\x05."s,
                            "R."s,
                            ")R."s,
                            "t."s,
                            "e."s,
                            "\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01."s,
                            "X\xff\xff\xff\xff"
                            "abc."s,
                            "cos."s,
                            "}b."s,
                            "K\x01]s."s,
                            "K\x01Q."s,
                            "((."s})
    EXPECT_NE(error_of(bytes), "") << bytes;
}

TEST(PickleTest, CyclesAndDeepNestingDoNoHarm) {
  Pickle const cycle(
      "]q\x00h\x00"
      "a."s);  // a list that holds itself
  EXPECT_EQ(cycle.root().items[0], &cycle.root());
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "]";
  for (int i = 1; i < 100'000; ++i) deep += "a";
  EXPECT_EQ(error_of(deep + "."), "");
}

// Each would take the product of two parts of the file's length.
TEST(PickleTest, WhatWouldCopyItsPartsManyTimesIsAnError) {
  std::string pairs, sizes, calls;
  std::string const call = "h\x02h\x03\x85R"s;
  for (int i = 0; i < 1000; ++i) pairs += "h\x01"s, sizes += "K\x01"s, calls += call;
  // Kept: 1 a pair, 2 OrderedDict, 3 a list of 1000 times that pair.
  std::string const start = "(NN\x86q\x01"s + "ccollections\nOrderedDict\nq\x02](" + pairs + "eq\x03";
  EXPECT_EQ(error_of(start + call + "t."), "");
  EXPECT_NE(error_of(start + calls + "t.").find("copied many times"), std::string::npos);
  std::string const tensor =
      "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
      "0X\x03\0\0\0cpuK\x06tQK\0("s +
      sizes + "t(" + sizes + "t\x89NtR.";
  EXPECT_NE(error_of(tensor).find("more than 64 axes"), std::string::npos);
}

TEST(PickleTest, EveryCutAndEveryChangedByteIsAnErrorOrHarmless) {
  for (std::size_t bytes = 0; bytes < kPlain.size(); ++bytes) EXPECT_NE(error_of(kPlain.substr(0, bytes)), "") << bytes;
  for (std::size_t i = 0; i < kPlain.size(); ++i)
    for (int value = 0; value < 256; ++value) {
      auto changed = kPlain;
      changed[i] = static_cast<char>(value);
      error_of(changed);
    }
}

}  // namespace
}  // namespace duoflow::model::test
