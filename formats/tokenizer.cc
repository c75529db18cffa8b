/* tokenizer.cc - the C++ library behind a C interface; none of its exceptions gets out. */
#include "formats/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
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

using check = std::string (*)(const sentencepiece::SentencePieceProcessor &);

/* What speaks against its being T5's; empty when nothing does. */
std::string not_t5(const sentencepiece::SentencePieceProcessor &model)
{
    if (model.pad_id() == TOKENIZER_PAD && model.eos_id() == TOKENIZER_EOS) return "";
    return "<pad> is " + std::to_string(model.pad_id()) + " and </s> is " + std::to_string(model.eos_id()) +
           ", not 0 and 1: not a T5 model";
}

std::string not_llama(const sentencepiece::SentencePieceProcessor &model)
{
    if (model.unk_id() != LLAMA_UNK || model.bos_id() != LLAMA_BOS || model.eos_id() != LLAMA_EOS)
        return "<unk>, <s> and </s> are " + std::to_string(model.unk_id()) + ", " +
               std::to_string(model.bos_id()) + " and " + std::to_string(model.eos_id()) +
               ", not 0, 1 and 2: not a LLaMA model";
    /* Two line ends show all else that matters: a space goes in front, nothing is normalised or collapsed,
     * and what has no piece is spelled in bytes. */
    const int space = model.PieceToId("\u2581"), newline = model.PieceToId("<0x0A>");
    if (model.EncodeAsIds("\n\n") != std::vector<int>{space, newline, newline})
        return "two line ends are not a space and two bytes: not a LLaMA model";
    return "";
}

/* The reason is empty when all is well. */
std::string load(tokenizer &t, const char *path, check wrong)
{
    std::string bytes, why;
    if (!read_file(path, bytes, why)) return why;
    if (bytes.empty()) return "an empty file";

    if (!t.model.LoadFromSerializedProto(bytes).ok()) return "not a SentencePiece model, or a damaged one";
    return wrong(t.model);
}

tokenizer *open_checked(const char *path, check wrong, char *err, size_t errlen)
{
    try {
        auto t = std::make_unique<tokenizer>();
        std::string why = load(*t, path, wrong);
        if (why.empty()) return t.release();
        snprintf(err, errlen, "%s: %s", path, why.c_str());
    } catch (const std::exception &e) {
        snprintf(err, errlen, "%s: %s", path, e.what());
    }
    return nullptr;
}

/* The first of LLaMA's special tokens in the text from `from` on; npos: none. */
size_t find_special(const std::string &text, size_t from, int *id, size_t *length)
{
    static const std::string special[] = {"<unk>", "<s>", "</s>"}; /* in the order of their ids */
    size_t first = std::string::npos;
    for (int i = 0; i < 3; i++) {
        size_t at = text.find(special[i], from);
        if (at < first) first = at, *id = i, *length = special[i].size();
    }
    return first;
}

/* A copy for C to free. */
void *copy_out(const void *bytes, size_t n)
{
    void *copy = malloc(n + 1);
    if (!copy) throw std::bad_alloc();
    if (n) memcpy(copy, bytes, n); /* an empty vector has no data */
    return copy;
}

} // namespace

tokenizer *tokenizer_open(const char *path, char *err, size_t errlen)
{
    return open_checked(path, not_t5, err, errlen);
}

tokenizer *tokenizer_open_llama(const char *path, char *err, size_t errlen)
{
    return open_checked(path, not_llama, err, errlen);
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

int32_t *tokenizer_pieces(const tokenizer *t, const char *text, size_t length, int *count, char *err,
                          size_t errlen)
{
    try {
        const std::string all(text, length);
        std::vector<int> ids, part;
        for (size_t at = 0; at < all.size();) {
            int special = 0;
            size_t skip = 0, end = std::min(find_special(all, at, &special, &skip), all.size());
            if (end > at) {
                auto status = t->model.Encode(absl::string_view(all.data() + at, end - at), &part);
                if (!status.ok()) throw std::runtime_error(status.error_message());
                ids.insert(ids.end(), part.begin(), part.end());
            }
            if (skip) ids.push_back(special);
            at = end + skip;
        }
        *count = (int)ids.size();
        static_assert(sizeof(int) == sizeof(int32_t), "ids are int32_t");
        return (int32_t *)copy_out(ids.data(), ids.size() * sizeof(int32_t));
    } catch (const std::exception &e) {
        snprintf(err, errlen, "%s", e.what());
        return nullptr;
    }
}

char *tokenizer_decode(const tokenizer *t, const int32_t *ids, int count, char *err, size_t errlen)
{
    try {
        std::vector<int> kept;
        for (int i = 0; i < count; i++) {
            if (ids[i] < 0 || ids[i] >= tokenizer_size(t))
                throw std::runtime_error("id " + std::to_string(ids[i]) + " of " +
                                         std::to_string(tokenizer_size(t)));
            if (ids[i] > LLAMA_EOS) kept.push_back(ids[i]);
        }
        std::string text;
        auto status = t->model.Decode(kept, &text);
        if (!status.ok()) throw std::runtime_error(status.error_message());
        for (size_t at; (at = text.find('\0')) != std::string::npos;) text.replace(at, 1, "\ufffd");
        return (char *)copy_out(text.c_str(), text.size() + 1);
    } catch (const std::exception &e) {
        snprintf(err, errlen, "%s", e.what());
        return nullptr;
    }
}
