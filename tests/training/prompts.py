"""Turns the wordings into token tables, so that the machine with the GPU needs no tokenizer.

    python prompts.py --tokenizer FOLDER --out prompts.npz
"""

import argparse
import random

import numpy as np
import wordings

# Forms of each edit's wordings to train on.
FORMS = 1500


def tables(encode, seed=0):
    """Token ids: "train" [edits, FORMS, 77], "test" [edits, wordings, 77], "empty" [77], "nonsense" [FORMS, 77]."""
    wordings.check()
    draw = random.Random(seed)
    kept = wordings.held_out()
    train, test = [], []
    for name in wordings.EDITS:
        sentences = wordings.TRAIN[name]
        each = -(-FORMS // len(sentences))
        forms = [form for s in sentences for form in wordings.variations(s, each, seed, kept)]
        draw.shuffle(forms)
        rows = encode(forms[:FORMS])
        for row in rows:
            # A word from anywhere in between, now and then: what the model does not know must not matter.
            if draw.random() < 0.15:
                end = int((row == 49407).argmax())
                at = draw.randrange(1, end + 1)
                row[at + 1 :] = row[at:-1].copy()
                row[at] = draw.randrange(49406)
        train.append(rows)
        test.append(encode(wordings.TEST[name]))
    nonsense = np.stack([encode([""])[0] for _ in range(FORMS)])
    for row in nonsense:
        words = draw.randrange(1, 9)
        row[1 : 1 + words] = [draw.randrange(49406) for _ in range(words)]
    return {"nonsense": nonsense, "train": np.stack(train), "test": np.stack(test), "empty": encode([""])[0]}


def main():
    from transformers import CLIPTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer)

    def encode(sentences):
        rows = tokenizer(sentences, padding="max_length", max_length=77, truncation=True)["input_ids"]
        return np.array(rows, dtype=np.int32)

    np.savez_compressed(args.out, **tables(encode))


if __name__ == "__main__":
    main()
