#include "model/reference_checkpoint/pickle.h"

#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>

#include <fmt/format.h>

namespace duoflow::model {
namespace {

using Kind = PickleNode::Kind;
using Type = c10::ScalarType;

struct StorageClass {
  char const* name;
  Type dtype;
};
constexpr std::array kStorageClasses{
    StorageClass{"torch FloatStorage", Type::Float},       StorageClass{"torch HalfStorage", Type::Half},
    StorageClass{"torch BFloat16Storage", Type::BFloat16}, StorageClass{"torch DoubleStorage", Type::Double},
    StorageClass{"torch LongStorage", Type::Long},         StorageClass{"torch IntStorage", Type::Int},
    StorageClass{"torch ShortStorage", Type::Short},       StorageClass{"torch CharStorage", Type::Char},
    StorageClass{"torch ByteStorage", Type::Byte},         StorageClass{"torch BoolStorage", Type::Bool}};

constexpr std::size_t kMostValues = std::size_t{1} << 22;  // of about 200 bytes each; a checkpoint has 25 a tensor
constexpr std::size_t kMostAxes = 64;                      // LibTorch's own limit

constexpr char const* kOrderedDict = "collections OrderedDict";
constexpr char const* kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr char const* kRebuildParameter = "torch._utils _rebuild_parameter";
constexpr char const* kSize = "torch Size";

std::optional<Type> storage_type(std::string const& global) {
  for (auto const& known : kStorageClasses)
    if (global == known.name) return known.dtype;
  return std::nullopt;
}

bool is_allowed(std::string const& global) {
  return global == kOrderedDict || global == kRebuildTensor || global == kRebuildParameter || global == kSize ||
         storage_type(global).has_value();
}

[[noreturn]] void malformed(std::string const& what, std::size_t position) {
  throw FormatError(fmt::format(
      "the pickle is malformed at byte {}: {} (the file is damaged or no checkpoint); copy or save it again", position,
      what));
}

}  // namespace

char const* kind_name(Kind kind) {
  constexpr std::array names{"None",    "bool",  "int", "float", "str", "tuple", "list", "dict", "class or function",
                             "storage", "tensor"};
  return names[static_cast<std::size_t>(kind)];
}

PickleNode const* PickleNode::get(std::string_view key) const {
  if (kind != Kind::dict) return nullptr;
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry)  // the last one put in counts
    if (entry->first->kind == Kind::text && entry->first->text == key) return entry->second;
  return nullptr;
}

// Python's pickle machine: a stack, marks on it, and a memo of values to refer to again.
class PickleMachine {
 public:
  PickleMachine(Pickle& pickle, std::string_view bytes) : pickle_(pickle), bytes_(bytes) {}

  PickleNode const* run() {
    while (!step()) {
    }
    if (stack_.size() != 1) malformed(fmt::format("{} values are left, 1 expected", stack_.size()), at_);
    return stack_.back();
  }

 private:
  PickleNode* make(Kind kind) {
    if (pickle_.nodes_.size() == kMostValues) malformed(fmt::format("more than {} values", kMostValues), at_);
    pickle_.nodes_.emplace_back().kind = kind;
    return &pickle_.nodes_.back();
  }
  void push(PickleNode* node) { stack_.push_back(node); }
  void push_integer(std::int64_t value) {
    auto* node = make(Kind::integer);
    node->integer = value;
    node->real = static_cast<double>(value);
    push(node);
  }
  void push_text(std::uint64_t bytes) {
    auto const text = take(bytes);
    auto* node = make(Kind::text);
    node->text = std::string(text);
    push(node);
  }

  std::string_view take(std::uint64_t bytes) {
    if (bytes > bytes_.size() - at_) malformed("it ends early", at_);
    auto const part = bytes_.substr(at_, static_cast<std::size_t>(bytes));
    at_ += static_cast<std::size_t>(bytes);
    return part;
  }
  template <class T>
  T take_number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view take_line() {
    auto const end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) malformed("a line without an end", at_);
    auto const line = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return line;
  }

  PickleNode* pop() {
    if (stack_.empty() || (!marks_.empty() && marks_.back() == stack_.size())) malformed("a value is missing", at_);
    auto* node = stack_.back();
    stack_.pop_back();
    return node;
  }
  PickleNode* pop(Kind kind) {
    auto* node = pop();
    expect(*node, kind);
    return node;
  }
  PickleNode* top(Kind kind) {
    if (stack_.empty()) malformed("a value is missing", at_);
    expect(*stack_.back(), kind);
    return stack_.back();
  }
  void expect(PickleNode const& node, Kind kind) const {
    if (node.kind != kind)
      malformed(fmt::format("a {} where a {} belongs", kind_name(node.kind), kind_name(kind)), at_);
  }
  // What lies above the last mark.
  std::vector<PickleNode const*> pop_marked() {
    if (marks_.empty()) malformed("a mark is missing", at_);
    std::vector<PickleNode const*> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  void push_tuple(std::vector<PickleNode const*> items) {
    auto* node = make(Kind::tuple);
    node->items = std::move(items);
    push(node);
  }
  void push_last(std::size_t count) {
    std::vector<PickleNode const*> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }

  void push_global(std::string name) {
    if (!is_allowed(name)) {
      auto const dot = name.find(' ');
      throw FormatError(
          fmt::format("it refers to {}.{} (code that loading it in Python may run; here only tensors and plain "
                      "containers are read); load it where "
                      "it is trusted and save its tensors: torch.save({{'model': model.state_dict()}}, 'NEW.pt')",
                      name.substr(0, dot), dot == std::string::npos ? "" : name.substr(dot + 1)));
    }
    auto* node = make(Kind::global);
    node->text = std::move(name);
    push(node);
  }

  void set_items(std::vector<PickleNode const*> const& items) {
    if (items.size() % 2 != 0) malformed("a key without a value", at_);
    auto* dict = top(Kind::dict);
    for (std::size_t i = 0; i < items.size(); i += 2) dict->entries.emplace_back(items[i], items[i + 1]);
  }
  void append(std::vector<PickleNode const*> const& items) {
    auto* list = top(Kind::list);
    list->items.insert(list->items.end(), items.begin(), items.end());
  }

  // Of what exists already and is copied. All copies together are no longer than a few pickles in a checkpoint, where
  // nothing is copied twice.
  void count_copied(std::size_t items) {
    if (items > copies_left_) malformed("values that are copied many times", at_);
    copies_left_ -= items;
  }

  PickleNode const& argument(PickleNode const& arguments, std::size_t i, Kind kind) const {
    if (i >= arguments.items.size()) malformed("an argument is missing", at_);
    expect(*arguments.items[i], kind);
    return *arguments.items[i];
  }
  std::vector<std::int64_t> integers(PickleNode const& tuple) const {
    if (tuple.items.size() > kMostAxes) malformed(fmt::format("a tensor of more than {} axes", kMostAxes), at_);
    std::vector<std::int64_t> values;
    for (auto const* item : tuple.items) {
      expect(*item, Kind::integer);
      if (item->integer < 0) malformed("a negative size or stride", at_);
      values.push_back(item->integer);
    }
    return values;
  }

  void reduce() {
    auto const& arguments = *pop(Kind::tuple);
    auto const& function = *pop(Kind::global);
    if (function.text == kOrderedDict) {
      auto* dict = make(Kind::dict);
      push(dict);
      if (arguments.items.empty()) return;
      auto const& pairs = argument(arguments, 0, Kind::list).items;
      count_copied(pairs.size());
      for (auto const* pair : pairs) {
        if (pair->items.size() != 2) malformed("an entry that is no pair", at_);
        dict->entries.emplace_back(pair->items[0], pair->items[1]);
      }
    } else if (function.text == kRebuildTensor) {
      push_tensor(arguments);
    } else if (function.text == kRebuildParameter) {
      auto const& tensor = argument(arguments, 0, Kind::tensor);
      count_copied(tensor.text.size());
      auto* copy = make(Kind::tensor);
      *copy = tensor;
      push(copy);
    } else if (function.text == kSize) {
      auto const& sizes = argument(arguments, 0, Kind::tuple).items;
      count_copied(sizes.size());
      push_tuple(sizes);
    } else {
      malformed("a storage class that is called", at_);
    }
  }

  void push_tensor(PickleNode const& arguments) {
    auto const& storage = argument(arguments, 0, Kind::storage);
    count_copied(storage.text.size());
    auto* tensor = make(Kind::tensor);
    *tensor = storage;
    tensor->kind = Kind::tensor;
    tensor->offset = argument(arguments, 1, Kind::integer).integer;
    tensor->sizes = integers(argument(arguments, 2, Kind::tuple));
    tensor->strides = integers(argument(arguments, 3, Kind::tuple));
    if (tensor->offset < 0 || tensor->sizes.size() != tensor->strides.size())
      malformed("a tensor that contradicts itself", at_);
    push(tensor);
  }

  // ('storage', class, record, device, numel)
  void push_storage() {
    auto const& id = *pop(Kind::tuple);
    if (argument(id, 0, Kind::text).text != "storage") malformed("a reference that is no storage", at_);
    auto const type = storage_type(argument(id, 1, Kind::global).text);
    if (!type) malformed("a storage of no known type", at_);
    auto* storage = make(Kind::storage);
    storage->dtype = *type;
    storage->text = argument(id, 2, Kind::text).text;
    count_copied(storage->text.size());
    storage->numel = argument(id, 4, Kind::integer).integer;
    if (storage->numel < 0) malformed("a storage of negative size", at_);
    push(storage);
  }

  void put(std::uint64_t index) {
    if (stack_.empty()) malformed("a value is missing", at_);
    memo_[index] = stack_.back();
  }
  void get(std::uint64_t index) {
    auto const found = memo_.find(index);
    if (found == memo_.end()) malformed("a reference to a value that was not kept", at_);
    stack_.push_back(found->second);
  }

  void push_long(std::uint64_t bytes) {
    auto const digits = take(bytes);
    if (bytes > 8) malformed("an integer of more than 64 bits", at_);
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < digits.size(); ++i)
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(digits[i])) << (8 * i);
    if (bytes > 0 && bytes < 8 && (static_cast<unsigned char>(digits.back()) & 0x80) != 0)
      value |= ~std::uint64_t{0} << (8 * bytes);
    push_integer(static_cast<std::int64_t>(value));
  }

  void push_real() {
    std::uint64_t bits = 0;
    for (char const byte : take(8)) bits = bits << 8 | static_cast<unsigned char>(byte);
    auto* node = make(Kind::real);
    node->real = std::bit_cast<double>(bits);
    push(node);
  }

  void build() {  // attributes of an OrderedDict (a state dict's _metadata): not needed
    pop();
    top(Kind::dict);
  }

  bool step();  // true: the end

  Pickle& pickle_;
  std::string_view bytes_;
  std::size_t at_ = 0;
  std::size_t copies_left_ = 4 * bytes_.size();
  std::vector<PickleNode*> stack_;
  std::vector<std::size_t> marks_;
  std::map<std::uint64_t, PickleNode*> memo_;
};

bool PickleMachine::step() {
  auto const code = take_number<std::uint8_t>();
  switch (code) {
    case 0x80:
      take(1);
      return false;  // PROTO
    case 0x95:
      take(8);
      return false;  // FRAME
    case '.':
      return true;  // STOP
    case '(':
      marks_.push_back(stack_.size());
      return false;  // MARK
    case 'N':
      push(make(Kind::none));
      return false;  // NONE
    case 0x88:
    case 0x89: {  // NEWTRUE, NEWFALSE
      auto* node = make(Kind::boolean);
      node->integer = code == 0x88;
      push(node);
      return false;
    }
    case 'K':
      push_integer(take_number<std::uint8_t>());
      return false;  // BININT1
    case 'M':
      push_integer(take_number<std::uint16_t>());
      return false;  // BININT2
    case 'J':
      push_integer(take_number<std::int32_t>());
      return false;  // BININT
    case 0x8a:
      push_long(take_number<std::uint8_t>());
      return false;  // LONG1
    case 'G':
      push_real();
      return false;  // BINFLOAT
    case 0x8c:
      push_text(take_number<std::uint8_t>());
      return false;  // SHORT_BINUNICODE
    case 'X':
      push_text(take_number<std::uint32_t>());
      return false;  // BINUNICODE
    case 0x8d:
      push_text(take_number<std::uint64_t>());
      return false;  // BINUNICODE8
    case ')':
      push_tuple({});
      return false;  // EMPTY_TUPLE
    case 0x85:
      push_last(1);
      return false;  // TUPLE1
    case 0x86:
      push_last(2);
      return false;  // TUPLE2
    case 0x87:
      push_last(3);
      return false;  // TUPLE3
    case 't':
      push_tuple(pop_marked());
      return false;  // TUPLE
    case ']':
      push(make(Kind::list));
      return false;  // EMPTY_LIST
    case 'a':
      append({pop()});
      return false;  // APPEND
    case 'e':
      append(pop_marked());
      return false;  // APPENDS
    case '}':
      push(make(Kind::dict));
      return false;  // EMPTY_DICT
    case 's': {      // SETITEM
      auto const* value = pop();
      set_items({pop(), value});
      return false;
    }
    case 'u':
      set_items(pop_marked());
      return false;  // SETITEMS
    case 'c': {      // GLOBAL
      std::string module(take_line());
      push_global(module + " " + std::string(take_line()));
      return false;
    }
    case 0x93: {  // STACK_GLOBAL
      auto const name = pop(Kind::text)->text;
      push_global(pop(Kind::text)->text + " " + name);
      return false;
    }
    case 'Q':
      push_storage();
      return false;  // BINPERSID
    case 'R':
      reduce();
      return false;  // REDUCE
    case 'b':
      build();
      return false;  // BUILD
    case 'q':
      put(take_number<std::uint8_t>());
      return false;  // BINPUT
    case 'r':
      put(take_number<std::uint32_t>());
      return false;  // LONG_BINPUT
    case 0x94:
      put(memo_.size());
      return false;  // MEMOIZE
    case 'h':
      get(take_number<std::uint8_t>());
      return false;  // BINGET
    case 'j':
      get(take_number<std::uint32_t>());
      return false;  // LONG_BINGET
    default:
      throw FormatError(fmt::format(
          "the pickle has the operation 0x{:02x} at byte {} (not one that tensors and plain containers need); "
          "load it where it is trusted and save its tensors alone",
          code, at_ - 1));
  }
}

Pickle::Pickle(std::string_view bytes) { root_ = PickleMachine(*this, bytes).run(); }

}  // namespace duoflow::model
