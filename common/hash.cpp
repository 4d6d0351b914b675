#include "common/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <array>
#include <vector>

#include "common/ensure.h"

namespace coxswain {
namespace {

std::string to_hex(const unsigned char* bytes, std::size_t num_bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * num_bytes);
  for (std::size_t i = 0; i < num_bytes; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

const unsigned char* as_bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

}  // namespace

std::string sha256_hex(std::string_view data) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  COX_ENSURE(EVP_Digest(data.data(), data.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1);
  return to_hex(digest.data(), length);
}

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() { COX_ENSURE(context != nullptr && EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::add(std::string_view data) {
  COX_ENSURE(EVP_DigestUpdate(state_->context, data.data(), data.size()) == 1);
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  COX_ENSURE(EVP_DigestFinal_ex(state_->context, digest.data(), &length) == 1);
  return to_hex(digest.data(), length);
}

std::string hmac_sha256_hex(std::string_view key, std::string_view data) {
  // OpenSSL takes a null key for "the previous one"; an empty key must stay an empty key.
  const unsigned char empty = 0;
  const unsigned char* key_bytes = key.empty() ? &empty : as_bytes(key);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  COX_ENSURE(HMAC(EVP_sha256(), key_bytes, static_cast<int>(key.size()), as_bytes(data), data.size(), digest.data(),
                  &length) != nullptr);
  return to_hex(digest.data(), length);
}

bool equal_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && (a.empty() || CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0);
}

std::string random_hex(int num_bytes) {
  COX_ENSURE(num_bytes >= 0, num_bytes);
  std::vector<unsigned char> bytes(static_cast<std::size_t>(num_bytes) + 1);
  COX_ENSURE(RAND_bytes(bytes.data(), num_bytes) == 1);
  return to_hex(bytes.data(), static_cast<std::size_t>(num_bytes));
}

}  // namespace coxswain
