/* tokenizer.cc - the C++ library behind a C interface; none of its exceptions gets out. */
#include "formats/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

struct tokenizer {
    sentencepiece::SentencePieceProcessor model;
};

namespace
{

/* T5's is 0.8 MB. The bound keeps a wrong path (a weight file) from being read whole. */
constexpr size_t largest_model = 64 << 20;

bool read_file(const char *path, std::string &bytes, std::string &why)
{
    std::unique_ptr<FILE, int (*)(FILE *)> file(fopen(path, "rb"), fclose);
    if (!file) {
        why = strerror(errno);
        return false;
    }
    char block[1 << 16];
    size_t got;
    while ((got = fread(block, 1, sizeof block, file.get())) > 0) {
        bytes.append(block, got);
        if (bytes.size() > largest_model) {
            why = "larger than 64 MiB: not a SentencePiece model";
            return false;
        }
    }
    if (ferror(file.get())) why = strerror(errno);
    return why.empty();
}

/* The reason is empty when all is well. */
std::string load(tokenizer &t, const char *path)
{
    std::string bytes, why;
    if (!read_file(path, bytes, why)) return why;
    if (bytes.empty()) return "an empty file";

    if (!t.model.LoadFromSerializedProto(bytes).ok()) return "not a SentencePiece model, or a damaged one";
    if (t.model.pad_id() != TOKENIZER_PAD || t.model.eos_id() != TOKENIZER_EOS)
        return "<pad> is " + std::to_string(t.model.pad_id()) + " and </s> is " +
               std::to_string(t.model.eos_id()) + ", not 0 and 1: not a T5 model";
    return "";
}

} // namespace

tokenizer *tokenizer_open(const char *path, char *err, size_t errlen)
{
    try {
        auto t = std::make_unique<tokenizer>();
        std::string why = load(*t, path);
        if (why.empty()) return t.release();
        snprintf(err, errlen, "%s: %s", path, why.c_str());
    } catch (const std::exception &e) {
        snprintf(err, errlen, "%s: %s", path, e.what());
    }
    return nullptr;
}

void tokenizer_close(tokenizer *t)
{
    delete t;
}

int tokenizer_size(const tokenizer *t)
{
    return t->model.GetPieceSize();
}

int64_t tokenizer_encode(const tokenizer *t, const char *text, size_t length, int32_t *ids, int max,
                         char *err, size_t errlen)
{
    try {
        std::vector<int> pieces;
        auto status = t->model.Encode(absl::string_view(text, length), &pieces);
        if (!status.ok()) {
            snprintf(err, errlen, "%s", status.error_message());
            return -1;
        }
        size_t kept = std::min(pieces.size(), (size_t)max - 1);
        std::copy_n(pieces.begin(), kept, ids);
        ids[kept] = TOKENIZER_EOS;
        std::fill(ids + kept + 1, ids + max, TOKENIZER_PAD);
        return (int64_t)pieces.size() + 1;
    } catch (const std::exception &e) {
        snprintf(err, errlen, "%s", e.what());
        return -1;
    }
}
